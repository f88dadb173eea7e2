"""A config.pbtxt: its text, its meaning, and edits that change only the named fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tuner.config import edits, expectation
from tuner.config.paths import Segments, find, resolve, to_remove
from tuner.config.pbtxt import MessageValue, parse
from tuner.config.schema import takes_text
from tuner.config.semantics import SCHEMA, to_proto, unknown_fields
from tuner.config.tokens import error_at
from tuner.config.values import EMPTY, Single, Value, contents, fitting
from tuner.core.errors import ConfigError

__all__ = ["EMPTY", "ModelConfig", "Value"]


@dataclass(frozen=True)
class ModelConfig:
    """The text of a valid config.pbtxt.

    Triton may be newer than our protobuf schema. Fields and enum values that the schema does not know are allowed. They
    are not in `proto`, and edits keep them.

    Field paths, as `values` and `edited` take them:

        max_batch_size
        dynamic_batching.max_queue_delay_microseconds
        instance_group[*].count                             of every group
        instance_group[0].count
        parameters["KEY"].string_value                      of the map entry with this key
        optimization.execution_accelerators.gpu_execution_accelerator["tensorrt"]
                                                            the message of a list with this name

    Attributes:
        text: Every byte of the file.
        source: Its origin, such as a path, for error messages.

    Raises:
        ConfigError: the text is not a valid config: `SOURCE:LINE:COLUMN: what is wrong`.
    """

    text: str
    source: str

    def __post_init__(self) -> None:
        _ = self._proto

    def __reduce__(self) -> tuple[type[ModelConfig], tuple[str, str]]:
        """Pickle the text alone, as parsed messages cannot be pickled."""
        return type(self), (self.text, self.source)

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """Read a file.

        Raises:
            ConfigError: the file cannot be read, or is not a valid config.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            before = content[: error.start].decode()
            what = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
            raise error_at(before, str(path), len(before), what) from None
        return cls(text, str(path))

    @classmethod
    def parse(cls, text: str, source: str) -> ModelConfig:
        """Parse a text.

        Raises:
            ConfigError: it is not a valid config.
        """
        return cls(text, source)

    @classmethod
    def from_proto(cls, proto: model_config_pb2.ModelConfig) -> ModelConfig:
        """Write the text of a config that the server has completed, for a model without a file.

        Fields of a newer server that our schema does not know are omitted.
        """
        text = text_format.MessageToString(proto, as_utf8=True, use_short_repeated_primitives=True)
        return cls(text, f"{proto.name or 'model'} (as the server completed it)")

    @property
    def proto(self) -> model_config_pb2.ModelConfig:
        """The text as a protobuf of our schema; a copy."""
        copy = model_config_pb2.ModelConfig()
        copy.CopyFrom(self._proto)
        return copy

    @property
    def unknown_fields(self) -> tuple[str, ...]:
        """Dotted names of the fields that our schema does not know. They are in the text, but not in `proto`."""
        return tuple(dict.fromkeys(unknown_fields(self._root)))

    def values(self, path: str) -> tuple[Single, ...]:
        """The values at a field path, in the order of the text. A repeated field gives each of its values.

        A message is `EMPTY`, whatever its fields. A field that is not in the text has no values, even if it has a
        default.

        Raises:
            ConfigError: there is no such field; the message has the nearest name.
        """
        segments = resolve(path, self._root, SCHEMA)
        return contents(find(self._root, segments), segments[-1])

    def takes_text(self, path: str) -> bool:
        """Whether a field holds text, so that a number must be written as text.

        Raises:
            ConfigError: there is no such field.
        """
        return takes_text(resolve(path, self._root, SCHEMA)[-1].field)

    def holds(self, path: str) -> bool:
        """Whether the text has a value at a field path.

        Raises:
            ConfigError: there is no such field.
        """
        return bool(self.values(path))

    def edited(self, changes: Mapping[str, Value | None]) -> ModelConfig:
        """The config with changed fields; all other bytes stay.

        Setting a field to its present value changes nothing. New fields are added in the file's own style, with missing
        parent messages and map entries. `[*]` of an empty list adds the first element. If a removed field leaves only a
        comment on its line, the line is removed.

        Args:
            changes: New values by field path. A repeated field takes the whole list, or its only value. `EMPTY` is for
                a message that must exist, and None removes the field. They are made in the order of the mapping.

        Raises:
            ConfigError: the field does not exist or does not take the value, or the changes contradict each other or
                the rest of the config.
        """
        text, expected = self.text, expectation.read(self._root, SCHEMA)
        made: list[tuple[str, Segments, Value]] = []
        for path, value in changes.items():
            root = parse(text, self.source)
            segments = resolve(path, root, SCHEMA)
            try:
                new = () if value is None else fitting(value, segments[-1])
                if new == ():
                    for gone in to_remove(root, segments):
                        text = edits.taken_out(text, self.source, gone)
                        expectation.remove(expected, gone)
                else:
                    text = edits.put(text, self.source, segments, new)
                    expectation.put(expected, segments, new)
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from None
            made.append((path, segments, new))
        return self._with(text, made, expected)

    def _with(
        self, text: str, made: Sequence[tuple[str, Segments, Value]], expected: expectation.Contents
    ) -> ModelConfig:
        """The config of an edited text.

        Raises:
            ConfigError: the text is not a valid config, differs from the expected one, or an edit undoes another one.
        """
        paths = ", ".join(path for path, _, _ in made)
        try:
            after = replace(self, text=text)
        except ConfigError as error:
            raise ConfigError(f"after the edit of {paths}: {error}") from None
        if expectation.read(parse(text, self.source), SCHEMA) != expected:
            raise ConfigError(f"{self.source}: the edit of {paths} would change other fields, too")
        for path, segments, new in made:
            if not expectation.is_made(expected, segments, new):
                raise ConfigError(f"{self.source}: edits of {paths} contradict each other: {path} would be undone")
        return after

    @cached_property
    def _root(self) -> MessageValue:
        return parse(self.text, self.source)

    @cached_property
    def _proto(self) -> model_config_pb2.ModelConfig:
        return to_proto(self.text, self.source, self._root)
