"""The place of a parameter: a field of a file, an argument of the server, or an environment variable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.config.config import EMPTY, ModelConfig, Value
from tuner.config.documents import Document
from tuner.config.patch import Patch
from tuner.config.repository import CONFIG
from tuner.core.errors import ConfigError
from tuner.core.yaml_files import YamlError, load_yaml
from tuner.space.spec import OFF, ON, LadderValue, ParameterSpec, Scalar

AS_IS = "as is"
"""The value of a parameter with several values in the model, such as different instance counts of groups."""


@dataclass(frozen=True)
class Place:
    """Where a parameter sets its value.

    Attributes:
        field: Path of the field in the file; empty for an argument or a variable.
        model: The model whose file it is; empty: the tuned model.
        file: Path of a JSON or YAML file in the model's folder; empty: config.pbtxt.
        server_arg: Name of the argument of `tritonserver`.
        env: Name of the environment variable.
        has_numbers: Whether a field of text is read as a number or a boolean if it is one.
    """

    field: str = ""
    model: str = ""
    file: str = ""
    server_arg: str = ""
    env: str = ""
    has_numbers: bool = False

    @classmethod
    def of(cls, name: str, spec: ParameterSpec) -> Place:
        """The place of a parameter of a space file."""
        is_field = not spec.server_arg and not spec.env
        has_numbers = any(not isinstance(value, str | tuple) for value in spec.values)
        return cls(
            (spec.field or name) if is_field else "", spec.model, spec.file, spec.server_arg, spec.env, has_numbers
        )

    @property
    def own_field(self) -> str:
        """The path of a field in the tuned model's config.pbtxt; empty: it is elsewhere."""
        return "" if self.model or self.file else self.field

    def path(self, model: str) -> str:
        """The path in the repository of the file that it is in; empty for an argument or a variable.

        Args:
            model: The name of the tuned model.
        """
        return f"{self.model or model}/{self.file or CONFIG}" if self.field else ""

    def __str__(self) -> str:
        if not self.field:
            return self.server_arg or self.env
        where = "/".join(part for part in (self.model, self.file) if part)
        return f"{where}: {self.field}" if where else self.field

    def value(self, patch: Patch, model: str, *, may_be_on: bool) -> LadderValue:
        """Its value in a patch, as a ladder value; for places other than fields of the tuned model's config.pbtxt.

        Args:
            patch: The patch.
            model: The name of the tuned model.
            may_be_on: Whether the field is a message that is either present or not.

        Raises:
            ConfigError: the field does not exist, or its value is neither a scalar nor a list of scalars.
        """
        if self.server_arg:
            return _of_text(patch.server_args.get(self.server_arg))
        if self.env:
            return _of_text(patch.env.get(self.env))
        path = self.path(model)
        if not self.file:
            config = ModelConfig.parse(patch.files[path], path)
            return value_at(self.field, config, may_be_on=may_be_on, has_numbers=self.has_numbers)
        return _of_document(Document(patch.files[path], path).value(self.field), f"{path}: {self.field}")


def edited_file(path: str, text: str, changes: Mapping[str, LadderValue]) -> str:
    """The text of a file with changed fields.

    Args:
        path: Its path in the repository.
        text: Its text.
        changes: Ladder values by field path.

    Raises:
        ConfigError: a field does not exist, or does not take the value.
    """
    if path.endswith(f"/{CONFIG}"):
        return edited(ModelConfig.parse(text, path), changes).text
    for name, value in changes.items():
        if value == ON:
            raise ConfigError(f"{path}: {name}: on is only for messages of a config.pbtxt; write true")
    return Document(text, path).edited({name: None if v == OFF else v for name, v in changes.items()}).text


def edited(config: ModelConfig, changes: Mapping[str, LadderValue]) -> ModelConfig:
    """A config with changed fields; numbers and booleans are written as text where the field is text.

    Args:
        config: The config.
        changes: Ladder values by field path.

    Raises:
        ConfigError: a field does not exist, or does not take the value.
    """
    edits: dict[str, Value | None] = {}
    for name, value in changes.items():
        is_word = isinstance(value, str)
        as_text = not is_word and config.takes_text(name)
        edits[name] = (
            None
            if is_word and value == OFF
            else EMPTY
            if is_word and value == ON
            else (tuple(map(_text, value)) if isinstance(value, tuple) else _text(value))
            if as_text
            else value
        )
    return config.edited(edits)


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_setting(value: LadderValue) -> str | None:
    """A ladder value as the value of an argument or a variable; None for `off`, and an empty text for `on`."""
    if value in {OFF, ON} and isinstance(value, str):
        return None if value == OFF else ""
    if isinstance(value, tuple):
        return ",".join(str(as_setting(item)) for item in value)
    return _text(value)


def value_at(field: str, config: ModelConfig, *, may_be_on: bool, has_numbers: bool = False) -> LadderValue:
    """The value of a field in a config, as a ladder value.

    Args:
        field: The field's path.
        config: The config.
        may_be_on: Whether the field is a message that is either present or not.
        has_numbers: Whether a text is read as a number or a boolean if it is one.

    Raises:
        ConfigError: the field does not exist, or it is a message and the ladder has values other than off and on.
    """
    items = config.values(field)
    if may_be_on:
        return ON if items else OFF
    if "[*]" in field and items:
        return _of_each(field, config, may_be_on=may_be_on, has_numbers=has_numbers)
    values = tuple(value for value in items if value is not EMPTY)
    if len(values) < len(items):
        raise ConfigError(f"{field} is a message; its ladder can only be [off, on]")
    if not values:
        return OFF
    if has_numbers:
        values = tuple(_number_of(value) for value in values)
    return values[0] if len(values) == 1 else values


def _number_of(value: Scalar) -> Scalar:
    """A text as the number or boolean that is written so; other values as they are."""
    if not isinstance(value, str):
        return value
    number = _of_text(value) if value else value
    return number if not isinstance(number, tuple) and _text(number) == value else value


def _of_each(field: str, config: ModelConfig, *, may_be_on: bool, has_numbers: bool) -> LadderValue:
    """The value that all messages of a list have which have one; `AS_IS` if they differ."""
    before, _, after = field.partition("[*]")
    paths = [f"{before}[{number}]{after}" for number in range(len(config.values(f"{before}[*]")))]
    values = [value_at(path, config, may_be_on=may_be_on, has_numbers=has_numbers) for path in paths]
    found = [value for value in values if value != OFF]
    return found[0] if all(type(value) is type(found[0]) and value == found[0] for value in found) else AS_IS


def _of_text(text: str | None) -> LadderValue:
    """The value of an argument or a variable: a number or a boolean if its text is one."""
    if text is None:
        return OFF
    if not text:
        return ON
    try:
        value = load_yaml(text)
    except YamlError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _of_document(value: Any, what: str) -> LadderValue:
    if value is None:
        return OFF
    if isinstance(value, list) and value and all(isinstance(item, bool | int | float | str) for item in value):
        return tuple(value)
    if isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"{what} is neither a value nor a list of values; name a field in it")
