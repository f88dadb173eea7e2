"""Search spaces in YAML: the fields that vary, their values (ladders) and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tuner.core.errors import SpaceError, nearest
from tuner.core.yaml_files import YamlError, load_yaml
from tuner.options.validation_errors import describe, first_fault

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
    ladder: Annotated[list[Scalar | list[int] | list[float] | list[str]], Field(min_length=1)] = Field(
        description="Values in order, each a scalar or a list; off removes the field, on adds an empty message."
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

    @model_validator(mode="after")
    def _distinct(self) -> ParameterSpec:
        for index, value in enumerate(self.ladder):
            if any(type(value) is type(other) and value == other for other in self.ladder[:index]):
                raise ValueError(f"duplicate value {value!r} in ladder")
        return self

    @property
    def values(self) -> tuple[LadderValue, ...]:
        """The ladder, with lists as tuples."""
        return tuple(tuple(value) if isinstance(value, list) else value for value in self.ladder)


class SpaceSpec(BaseModel):
    """A whole space file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, serialize_by_alias=True)

    schema_: Annotated[Literal[1], Field(alias="schema")]
    parameters: Annotated[dict[str, ParameterSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _conditions_are_known(self) -> SpaceSpec:
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
        return SpaceSpec.model_validate(content)
    except ValidationError as error:
        raise SpaceError(f"{source}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    fault = first_fault(error)
    path = [str(part) for part in fault["loc"]]
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
