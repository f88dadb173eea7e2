"""Search spaces in YAML: the fields that vary, their values (ladders), conditions and laws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tuner.config.documents import SUFFIXES
from tuner.core.errors import SpaceError, nearest
from tuner.core.names import why_no_folder
from tuner.core.yaml_files import YamlError, load_yaml
from tuner.options.environment import parse_environment
from tuner.options.triton_args import parse_triton_args
from tuner.options.validation_errors import describe, first_fault
from tuner.space.expressions import MACHINE_NAMES, Expression

OFF = "off"
ON = "on"

Scalar = bool | int | float | str
LadderValue = Scalar | tuple[Scalar, ...]


class ParameterSpec(BaseModel):
    """One parameter of a space file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    field: str = Field(
        "", description='Path of the field in config.pbtxt: a.b, a[*].b, a[0].b or a["key"].b. Default: the name.'
    )
    model: str = Field("", description="Model whose file has the field. Default: the tuned model.")
    file: str = Field(
        "", description="JSON or YAML file of the model with the field, such as 1/model.json. Default: config.pbtxt."
    )
    server_arg: str = Field(
        "", description="Argument of tritonserver to set instead of a field, such as --grpc-infer-thread-count."
    )
    env: str = Field("", description="Environment variable to set instead of a field, such as OMP_NUM_THREADS.")
    ladder: Annotated[list[Scalar | list[int] | list[float] | list[str]], Field(min_length=1)] | None = Field(
        None,
        description=(
            "Values in order, each a scalar or a list; off removes the field, on adds an empty message. "
            "Default: the ladder of the backend's parameter of that name."
        ),
    )
    upto: Literal["cores", "gpus"] | None = Field(
        None, description="Cuts the numbers of the ladder at that number of the machine, which joins the ladder."
    )
    when: dict[str, list[Scalar]] = Field(
        {}, description="Other parameters, each with the values at which this parameter applies."
    )
    max_per_cpu: Annotated[int, Field(ge=1)] | None = Field(
        None, description="For instances on CPUs: largest number for each core."
    )
    max_per_gpu: Annotated[int, Field(ge=1)] | None = Field(
        None, description="For instances on GPUs: largest number on each GPU."
    )
    changes_numerics: bool | list[Scalar] = Field(
        default=False,
        description="Values that may change what the model answers, or true: all but off. Needs --allow-numerics.",
    )
    try_alone: bool = Field(
        default=False, description="Launch each value alone before it is combined, as the server may not have it."
    )
    slow_launch: bool = Field(
        default=False,
        description="Allow a launch with a value other than the model's own 30 % of the budget, up to 15 minutes.",
    )
    does: str = Field("", description="What it does, in one line, for --list-space.")
    arguments: dict[str, list[str]] = Field(
        {}, description="Arguments of tritonserver that values need, by value, such as {node0: [--host-policy=...]}."
    )

    @model_validator(mode="after")
    def _has_one_place(self) -> ParameterSpec:
        given = [name for name in ("field", "model", "file", "server_arg", "env") if getattr(self, name)]
        for alone in ("server_arg", "env"):
            if alone in given and len(given) > 1:
                other = next(name for name in given if name != alone)
                raise ValueError(f"has both {alone} and {other}; a parameter sets one thing")
        if self.model and (reason := why_no_folder(self.model)):
            raise ValueError(f"model: {self.model!r} {reason}")
        if self.file:
            _check_file(self.file)
        if self.server_arg:
            _check_argument(self.server_arg, self.values)
        if self.env:
            _check_variable(self.env)
        return self

    @model_validator(mode="after")
    def _distinct(self) -> ParameterSpec:
        ladder = self.ladder or []
        for index, value in enumerate(ladder):
            if any(type(value) is type(other) and value == other for other in ladder[:index]):
                raise ValueError(f"duplicate value {value!r} in ladder")
        return self

    @property
    def values(self) -> tuple[LadderValue, ...]:
        """The ladder, with lists as tuples."""
        return tuple(tuple(value) if isinstance(value, list) else value for value in self.ladder or ())

    def may_differ(self, value: LadderValue) -> bool:
        """Whether a value is marked as changing what the model answers."""
        if isinstance(self.changes_numerics, bool):
            return self.changes_numerics and value != OFF
        return any(type(value) is type(marked) and value == marked for marked in self.changes_numerics)


def _check_file(file: str) -> None:
    """Check the path of a file in a model's folder.

    Raises:
        ValueError: it is not the path of a JSON or YAML file in that folder.
    """
    if not file.endswith(SUFFIXES):
        raise ValueError(f"file: {file!r} is not a JSON or YAML file (its name must end in {', '.join(SUFFIXES)})")
    if any(why_no_folder(part) for part in file.split("/")):
        raise ValueError(f"file: {file!r} must be a path in the model's folder, such as 1/model.json")


def _check_argument(name: str, values: Iterable[LadderValue]) -> None:
    """Check an argument of `tritonserver` with each of its values.

    Raises:
        ValueError: tritontune sets the argument itself, or it is not an argument.
    """
    for value in values:
        try:
            parse_triton_args([name if value in {OFF, ON} else f"{name}={value}"])
        except ValueError as error:
            what = f"{name!r} is not an argument of tritonserver; write it as --name" if name[:2] != "--" else error
            raise ValueError(f"server_arg: {what}") from None


def _check_variable(name: str) -> None:
    """Check the name of an environment variable.

    Raises:
        ValueError: it is not a name, or tritontune sets the variable itself.
    """
    if name == "TMPDIR":
        raise ValueError("env: TMPDIR cannot be set: each server gets its own folder")
    try:
        parse_environment({name: ""})
    except ValueError as error:
        raise ValueError(f"env: {error}") from None


class AtMostOne(BaseModel):
    """A law: of some parameters, at most one is set, that is, not `off`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    at_most_one: Annotated[list[str], Field(min_length=2)]

    def __str__(self) -> str:
        return f"at_most_one: [{', '.join(self.at_most_one)}]"


class Requires(BaseModel):
    """A law: where a parameter is set, that is, neither `off` nor `false`, others are set, too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    requires: Annotated[dict[str, list[str]], Field(min_length=1)]

    def __str__(self) -> str:
        pairs = ", ".join(f"{name}: [{', '.join(others)}]" for name, others in self.requires.items())
        return f"requires: {{{pairs}}}"


LawSpec = str | AtMostOne | Requires
"""A law of a space file; a text is an expression, see `tuner.space.expressions`."""


class SpaceSpec(BaseModel):
    """A whole space file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    schema_: Annotated[Literal[1], Field(alias="schema", description="1.")]
    backend: str = Field(
        "",
        description=(
            "Backend whose parameters are searched, too, with those of Triton's scheduling; auto: the model's. "
            "The file's own parameters replace those of the same names."
        ),
    )
    parameters: dict[str, ParameterSpec] = Field(
        {}, description="The parameters by name, in the order in which they are shown."
    )
    laws: list[LawSpec] = Field(
        [],
        description=(
            "What holds in every candidate: an expression such as instance_group.count * threads <= cores, "
            "at_most_one: [a, b], or requires: {a: [b]}. A law holds where a name has no number."
        ),
    )
    leave_out: list[str] = Field([], description="Parameters of the backend that are not searched.")

    @model_validator(mode="after")
    def _is_whole(self) -> SpaceSpec:
        if self.backend:
            return self
        if self.leave_out:
            raise ValueError("leave_out: needs `backend:`, whose parameters it leaves out")
        for name, parameter in self.parameters.items():
            if parameter.ladder is None:
                raise ValueError(f"parameters: {name}: ladder is missing")
        check_laws(self.laws, self.parameters)
        return self

    @model_validator(mode="after")
    def _conditions_are_known(self) -> SpaceSpec:
        if self.backend:
            return self  # `tuner.space.knowledge` knows the backend's parameters
        for name, parameter in self.parameters.items():
            for other, values in parameter.when.items():
                if other == name:
                    raise ValueError(f"{name}: when: a parameter cannot depend on itself")
                if other not in self.parameters:
                    hint = nearest(other, self.parameters.keys() - {name})
                    raise ValueError(f"{name}: when: this space has no parameter {other!r}{hint}")
                if not values:
                    raise ValueError(f"{name}: when: {other}: needs at least one value")
        return self


def check_laws(laws: Iterable[LawSpec], known: Mapping[str, object]) -> None:
    """Check that laws are valid, and name parameters.

    Raises:
        ValueError: a law is wrong.
    """
    for law in laws:
        try:
            names = names_of(law)
        except ValueError as error:
            raise ValueError(f"laws: {error}") from None
        numbers = MACHINE_NAMES if isinstance(law, str) else ()
        for name in names:
            if name not in known and name not in numbers:
                hint = nearest(name, [*known, *numbers])
                raise ValueError(f"laws: {str(law)!r}: this space has no parameter {name!r}{hint}")


def names_of(law: LawSpec) -> tuple[str, ...]:
    """The names in a law, in order of appearance."""
    if isinstance(law, str):
        return Expression.parse(law).names
    if isinstance(law, AtMostOne):
        return tuple(dict.fromkeys(law.at_most_one))
    return tuple(dict.fromkeys(name for first, others in law.requires.items() for name in (first, *others)))


def shipped_spaces() -> tuple[str, ...]:
    """The names of the spaces that ship with tritontune."""
    return tuple(
        sorted(f.name.removesuffix(".yaml") for f in files("search_spaces").iterdir() if f.name.endswith(".yaml"))
    )


def load_space(name_or_path: str) -> SpaceSpec:
    """Read a shipped space by name, or a file by path.

    Raises:
        SpaceError: the space does not exist or is wrong; the message has the place and the fix.
    """
    if name_or_path in shipped_spaces():
        return parse_space(files("search_spaces").joinpath(f"{name_or_path}.yaml").read_text("utf-8"), name_or_path)
    path = Path(name_or_path)
    if "/" not in name_or_path and not path.exists():
        hint = nearest(name_or_path, shipped_spaces())
        raise SpaceError(f"--space: {name_or_path!r} is neither a file nor a shipped search space{hint}")
    try:
        return parse_space(path.read_text(encoding="utf-8"), name_or_path)
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpaceError(f"{path}: cannot be read: it is not UTF-8 text") from None


def parse_space(text: str, source: str) -> SpaceSpec:
    """Read the text of a space file.

    Raises:
        SpaceError: the text is not a valid space; the message begins with `source`.
    """
    try:
        content = load_yaml(text)
    except YamlError as error:
        raise SpaceError(f"{source}{error}") from None
    if not isinstance(content, dict):
        raise SpaceError(f"{source}: a search space must be a mapping with `schema: 1` and `parameters:`")
    try:
        spec = SpaceSpec.model_validate(content)
    except ValidationError as error:
        raise SpaceError(f"{source}: {_first_fault(error)}") from None
    if not spec.parameters and not spec.backend:
        fault = "must not be empty, got {}" if "parameters" in spec.model_fields_set else "is missing"
        raise SpaceError(f"{source}: parameters{':' if fault[0] == 'm' else ''} {fault}")
    return spec


def _first_fault(error: ValidationError) -> str:
    fault = first_fault(error)
    path = [str(part) for part in fault["loc"]]
    if path[:1] == ["laws"] and len(path) > 1:
        return "laws: each must be an expression such as a * b <= cores, {at_most_one: [a, b]}, or {requires: {a: [b]}}"
    if fault["type"] == "extra_forbidden":
        fields: Mapping[str, Any] = SpaceSpec.model_fields if len(path) == 1 else ParameterSpec.model_fields
        names = {field.alias or name for name, field in fields.items()}
        return f"{': '.join([*path[:-1], f'unknown key {path[-1]!r}'])}{nearest(path[-1], names)}"
    if fault["type"] == "missing":
        return f"{': '.join(path)} is missing"
    where = ": ".join(path[: 4 if path[2:3] == ["when"] else 3])
    if path[2:3] == ["ladder"] and len(path) > 3:
        return f"{where}: {fault['input']!r} is not a value; write a number, text, true, false, off, on, or a list"
    return f"{where}: {describe(fault)}" if where else describe(fault)
