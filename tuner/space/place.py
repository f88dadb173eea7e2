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
from tuner.space.spec import OFF, ON, LadderValue, ParameterSpec

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
    """

    field: str = ""
    model: str = ""
    file: str = ""
    server_arg: str = ""
    env: str = ""

    @classmethod
    def of(cls, name: str, spec: ParameterSpec) -> Place:
        """The place of a parameter of a space file."""
        is_field = not spec.server_arg and not spec.env
        return cls((spec.field or name) if is_field else "", spec.model, spec.file, spec.server_arg, spec.env)

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
            return value_at(self.field, ModelConfig.parse(patch.files[path], path), may_be_on=may_be_on)
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
        return ModelConfig.parse(text, path).edited({name: as_edit(v) for name, v in changes.items()}).text
    for name, value in changes.items():
        if value == ON:
            raise ConfigError(f"{path}: {name}: on is only for messages of a config.pbtxt; write true")
    return Document(text, path).edited({name: None if v == OFF else v for name, v in changes.items()}).text


def as_edit(value: LadderValue) -> Value | None:
    """A ladder value as an edit of a config."""
    return None if value == OFF else EMPTY if value == ON else value


def as_setting(value: LadderValue) -> str | None:
    """A ladder value as the value of an argument or a variable; None for `off`, and an empty text for `on`."""
    if value in {OFF, ON} and isinstance(value, str):
        return None if value == OFF else ""
    if isinstance(value, tuple):
        return ",".join(str(as_setting(item)) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def value_at(field: str, config: ModelConfig, *, may_be_on: bool) -> LadderValue:
    """The value of a field in a config, as a ladder value.

    Args:
        field: The field's path.
        config: The config.
        may_be_on: Whether the field is a message that is either present or not.

    Raises:
        ConfigError: the field does not exist, or it is a message and the ladder has values other than off and on.
    """
    items = config.values(field)
    if may_be_on:
        return ON if items else OFF
    values = tuple(value for value in items if value is not EMPTY)
    if len(values) < len(items):
        raise ConfigError(f"{field} is a message; its ladder can only be [off, on]")
    if not values:
        return OFF
    if "[*]" in field:
        return values[0] if len(set(values)) == 1 else AS_IS
    return values[0] if len(values) == 1 else values


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
