"""A search space as it stands in its YAML file: which fields may vary, over which ladders, under which conditions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tuner.core.errors import SpaceError, nearest
from tuner.core.yaml_files import YamlError, load_yaml
from tuner.options.faults import in_words, most_telling

OFF = "off"
ON = "on"

Scalar = bool | int | float | str
LadderValue = Scalar | tuple[Scalar, ...]


class ParameterSpec(BaseModel):
    """One parameter of a space file.

    Attributes:
        field: The path of the field in config.pbtxt; empty: the parameter's own name.
        ladder: Its values in order; `off` leaves the field out, `on` puts in an empty message.
        when: Other parameters and the values of which they must have one for this one to count.
        max_per_cpu: For instance counts on the CPU: no more than this many a core.
        max_per_gpu: For instance counts on GPUs: no more than this many on each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    field: str = ""
    ladder: Annotated[list[Scalar | list[int] | list[float] | list[str]], Field(min_length=1)]
    when: dict[str, list[Scalar]] = {}
    max_per_cpu: Annotated[int, Field(ge=1)] | None = None
    max_per_gpu: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _distinct(self) -> ParameterSpec:
        for index, value in enumerate(self.ladder):
            if any(type(value) is type(other) and value == other for other in self.ladder[:index]):
                raise ValueError(f"ladder holds {value!r} twice")
        return self

    @property
    def values(self) -> tuple[LadderValue, ...]:
        """The ladder, its lists as tuples."""
        return tuple(tuple(value) if isinstance(value, list) else value for value in self.ladder)


class SpaceSpec(BaseModel):
    """A whole space file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Annotated[Literal[1], Field(alias="schema")]
    parameters: Annotated[dict[str, ParameterSpec], Field(min_length=1)]

    @model_validator(mode="after")
    def _conditions_are_known(self) -> SpaceSpec:
        for name, parameter in self.parameters.items():
            for other, values in parameter.when.items():
                if other not in self.parameters or other == name:
                    known = self.parameters.keys() - {name}
                    raise ValueError(f"{name}: when: {other!r} is not another parameter here{nearest(other, known)}")
                if not values:
                    raise ValueError(f"{name}: when: {other}: no value is named")
        return self


def shipped_spaces() -> tuple[str, ...]:
    """The names of the spaces that ship with tritontune."""
    return tuple(
        sorted(f.name.removesuffix(".yaml") for f in files("search_spaces").iterdir() if f.name.endswith(".yaml"))
    )


def load_space(name_or_path: str) -> SpaceSpec:
    """Read a shipped space by name, or a file by path.

    Raises:
        SpaceError: there is none, or it is wrong: where, and what would be right.
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
        SpaceError: it is wrong; the message begins with `source`.
    """
    try:
        content = load_yaml(text)
    except YamlError as error:
        raise SpaceError(f"{source}{error}") from None
    if not isinstance(content, dict):
        raise SpaceError(f"{source}: a search space is a mapping with `schema: 1` and `parameters:`")
    try:
        return SpaceSpec.model_validate(content)
    except ValidationError as error:
        raise SpaceError(f"{source}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    fault = most_telling(error)
    path = [str(part) for part in fault["loc"]]
    if fault["type"] == "extra_forbidden":
        known: Mapping[str, Any] = SpaceSpec.model_fields if len(path) == 1 else ParameterSpec.model_fields
        names = {field.alias or name for name, field in known.items()}
        return f"{': '.join([*path[:-1], f'unknown option {path[-1]!r}'])}{nearest(path[-1], names)}"
    if fault["type"] == "missing":
        return f"{': '.join(path)} is missing"
    where = ": ".join(path[:3])
    if path[2:3] == ["ladder"] and len(path) > 3:
        return f"{where}: {fault['input']!r} is not a value; write a number, text, true, false, off, on, or a list"
    return f"{where}: {in_words(fault)}" if where else in_words(fault)
