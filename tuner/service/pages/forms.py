"""What was entered into the forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuner.client.resources import Submission
from tuner.core.yaml_files import YamlError, load_yaml

_Line = Annotated[str, Field(max_length=4000)]


class FormError(ValueError):
    """What was entered is wrong.

    Attributes:
        problems: Each in a line.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class SubmitForm(BaseModel):
    """The form of a new job, as it was entered."""

    model_config = ConfigDict(frozen=True)

    kind: _Line = "tune"
    target: _Line = ""
    repository: _Line = ""
    model: _Line = ""
    slo: _Line = ""
    budget: _Line = ""
    priority: _Line = "0"
    options: Annotated[str, Field(max_length=100_000)] = ""
    key: Annotated[str, Field(max_length=100)] = ""

    def submission(self) -> Submission:
        """The job that it asks for.

        Raises:
            FormError: a field is wrong.
        """
        job = self._job()
        try:
            return Submission.model_validate(
                {
                    "kind": self.kind,
                    "job": job,
                    "target": self.target.strip() or None,
                    "priority": int(self.priority.strip() or "0"),
                }
            )
        except ValidationError as error:
            raise FormError(*(f"{each['loc'][0]}: {each['msg']}" for each in error.errors())) from None
        except ValueError:
            raise FormError(f"priority: {self.priority!r} is not a whole number") from None

    def _job(self) -> dict[str, Any]:
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
        return options
