"""What was entered into the forms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tuner.client.resources import Name, Resource, Schedule, ScheduleSpec, Submission, Target, TargetSpec
from tuner.core.quantities import parse_share
from tuner.core.yaml_files import YamlError, load_yaml
from tuner.options.validation_errors import describe
from tuner.service.pages.words import options_text

_MOST_VALUES = 10_000

_Line = Annotated[str, Field(max_length=4000)]
_Kind = TypeVar("_Kind", bound=Resource)
_NAME: TypeAdapter[str] = TypeAdapter(Name)


class FormError(ValueError):
    """What was entered is wrong.

    Attributes:
        problems: Each in a line.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class OptionsForm(BaseModel):
    """The options of a job, as they were entered: the usual ones in fields, and others as text of a job file."""

    model_config = ConfigDict(frozen=True)

    repository: _Line = ""
    model: _Line = ""
    slo: _Line = ""
    budget: _Line = ""
    options: Annotated[str, Field(max_length=100_000)] = ""

    @staticmethod
    def entered(job: Mapping[str, Any]) -> dict[str, str]:
        """What one would have entered for these options."""
        further = dict(job)
        fields = {name: str(further.pop(name)) for name in ("repository", "budget") if isinstance(job.get(name), str)}
        match job.get("model"):
            case str(name):
                fields["model"] = name
            case [*names] if all(isinstance(name, str) for name in names):
                fields["model"] = ", ".join(names)
        if isinstance(slo := job.get("slo"), Mapping) and all(isinstance(limit, str) for limit in slo.values()):
            fields["slo"] = ", ".join(f"{name}={limit}" for name, limit in slo.items())
        return {**fields, "options": options_text({name: job[name] for name in further if name not in fields})}

    def job(self) -> dict[str, Any]:
        """The options.

        Raises:
            FormError: a field is wrong.
        """
        fields = {
            "repository": self.repository.strip(),
            "model": self._models(),
            "slo": self._slo(),
            "budget": self.budget.strip(),
        }
        given = {name: value for name, value in fields.items() if value}
        further = self._further()
        if twice := sorted(given.keys() & further.keys()):
            raise FormError(f"{twice[0]}: it is given as a field and in the further options; use one of them")
        return {**given, **further}

    def _models(self) -> str | list[str]:
        names = [name.strip() for name in self.model.split(",") if name.strip()]
        # A measurement has one model, a tuning job a list of them.
        return names[0] if len(names) == 1 else names

    def _slo(self) -> dict[str, str]:
        limits = {}
        for text in filter(None, (part.strip() for part in self.slo.split(","))):
            name, equals, limit = text.replace("<=", "=").partition("=")
            if not equals:
                raise FormError(f"slo: {text!r} is not an SLO; write it as p99=25ms")
            if name.strip() in limits:
                raise FormError(f"slo: {name.strip()} is given twice")
            limits[name.strip()] = limit.strip().replace(" ", "")
        return limits

    def _further(self) -> Mapping[str, Any]:
        try:
            options = load_yaml(self.options) if self.options.strip() else {}
        except YamlError as error:
            raise FormError(f"further options{error}") from None
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            raise FormError("further options: write NAME: VALUE on each line, as in a job file")
        if _is_larger(options, _MOST_VALUES):
            raise FormError(f"further options: has more than {_MOST_VALUES:,} values")
        return options


def _is_larger(value: Any, most: int) -> bool:
    """Whether there are more values than `most` when references are written out, as in a YAML bomb or a circle."""
    left = [value]
    while left and most >= 0:
        most -= 1
        match left.pop():
            case Mapping() as inner:
                left.extend(islice(inner.values(), most + 2))
            case [*inner]:
                left.extend(inner[: most + 2])
    return most < 0


class SubmitForm(OptionsForm):
    """The form of a new job."""

    kind: _Line = "tune"
    target: _Line = ""
    priority: _Line = "0"
    key: Annotated[str, Field(max_length=100)] = ""

    def submission(self) -> Submission:
        """The job that it asks for.

        Raises:
            FormError: a field is wrong.
        """
        return _made(
            Submission,
            {
                "kind": self.kind,
                "job": self.job(),
                "target": self.target.strip() or None,
                "priority": _whole(self.priority),
            },
        )


class TargetForm(OptionsForm):
    """The form of a target. The version is 0 for a new one."""

    name: _Line = ""
    description: Annotated[str, Field(max_length=2000)] = ""
    action: _Line = "propose"
    min_gain: _Line = "3%"
    min_regression: _Line = "10%"
    version: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def of(cls, target: Target) -> TargetForm:
        """The form of a target as it is."""
        return cls(
            **cls.entered(target.job),
            name=target.name,
            description=target.description,
            action=target.policy.action,
            min_gain=f"{100 * target.policy.min_gain:g}%",
            min_regression=f"{100 * target.policy.min_regression:g}%",
            version=target.version,
        )

    def spec(self) -> TargetSpec:
        """The target that it asks for.

        Raises:
            FormError: a field is wrong.
        """
        policy = {
            "action": self.action,
            "min_gain": _share(self.min_gain, "smallest gain"),
            "min_regression": _share(self.min_regression, "smallest regression"),
        }
        return _made(TargetSpec, {"job": self.job(), "policy": policy, "description": self.description.strip()})


class ScheduleForm(BaseModel):
    """The form of a schedule. The version is 0 for a new one."""

    model_config = ConfigDict(frozen=True)

    name: _Line = ""
    target: _Line = ""
    cron: _Line = "0 2 * * *"
    timezone: _Line = "UTC"
    kind: _Line = "nightly"
    window: _Line = "8h"
    priority: _Line = "0"
    enabled: bool = False
    version: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def of(cls, schedule: Schedule) -> ScheduleForm:
        """The form of a schedule as it is."""
        fields = {name: getattr(schedule, name) for name in cls.model_fields}
        return cls.model_validate({**fields, "priority": str(schedule.priority)})

    def spec(self) -> ScheduleSpec:
        """The schedule that it asks for.

        Raises:
            FormError: a field is wrong.
        """
        fields = {name: value.strip() for name, value in self if isinstance(value, str) and name != "name"}
        return _made(ScheduleSpec, {**fields, "priority": _whole(self.priority), "enabled": self.enabled})


def named(name: str) -> str:
    """The name of something new.

    Raises:
        FormError: it is no name.
    """
    try:
        return _NAME.validate_python(name.strip())
    except ValidationError as error:
        raise FormError(f"name: {describe(error.errors()[0])}") from None


def _made(kind: type[_Kind], values: Mapping[str, Any]) -> _Kind:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise FormError(*(f"{each['loc'][-1]}: {describe(each)}" for each in error.errors())) from None


def _whole(text: str) -> int:
    try:
        return int(text.strip() or "0")
    except ValueError:
        raise FormError(f"priority: {text!r} is not a whole number") from None


def _share(text: str, name: str) -> float:
    try:
        return parse_share(text)
    except ValueError as error:
        raise FormError(f"{name}: {error}") from None
