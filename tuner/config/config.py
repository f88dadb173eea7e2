"""A config.pbtxt: its text, what the text means, and edits that change nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tuner.config import edits, expectation
from tuner.config.paths import Steps, find, resolve, to_remove
from tuner.config.pbtxt import Message, parse
from tuner.config.semantics import SCHEMA, to_proto, unknown_fields
from tuner.config.tokens import error_at
from tuner.config.values import EMPTY, Single, Value, contents, fitting
from tuner.core.errors import ConfigError

__all__ = ["EMPTY", "ModelConfig", "Value"]


@dataclass(frozen=True)
class ModelConfig:
    """The text of a config.pbtxt, known to be one.

    Triton may be newer than the protobuf schema here: fields and enum values that the schema does not know are no
    error, are not in `proto`, and survive every edit.

    Field paths, as `values` and `edited` take them:

        max_batch_size
        dynamic_batching.max_queue_delay_microseconds
        instance_group[*].count                             every group's
        instance_group[0].count
        parameters["KEY"].string_value                      an entry of a map, by its key

    Attributes:
        text: Every byte of the file.
        source: Where it is from, for error messages.

    Raises:
        ConfigError: the text is no config: `SOURCE:LINE:COLUMN: what is wrong`.
    """

    text: str
    source: str

    def __post_init__(self) -> None:
        _ = self._proto

    @classmethod
    def read(cls, path: Path) -> ModelConfig:
        """Read a file.

        Raises:
            ConfigError: it cannot be read, or is no config.
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
        """Take a text that is already in memory.

        Raises:
            ConfigError: it is no config.
        """
        return cls(text, source)

    @classmethod
    def from_proto(cls, proto: model_config_pb2.ModelConfig) -> ModelConfig:
        """Write down a config that the server has completed, for a model without a file.

        What a newer server says in fields that the schema here does not know cannot be written down, and is left out.
        """
        text = text_format.MessageToString(proto, as_utf8=True, use_short_repeated_primitives=True)
        return cls(text, f"{proto.name or 'model'} (as the server completed it)")

    @property
    def proto(self) -> model_config_pb2.ModelConfig:
        """What the text means to the schema here; a copy."""
        copy = model_config_pb2.ModelConfig()
        copy.CopyFrom(self._proto)
        return copy

    @property
    def unknown_fields(self) -> tuple[str, ...]:
        """The fields that the schema here does not know, and which are in the text alone, as dotted names."""
        return tuple(dict.fromkeys(unknown_fields(self._root)))

    def values(self, path: str) -> tuple[Single, ...]:
        """The values that the text has at a field path, in order; those of a repeated field one by one.

        A message counts as `EMPTY`, whatever it holds. What the text does not say is not there, default or not.

        Raises:
            ConfigError: there is no such field; the message has the nearest name.
        """
        steps = resolve(path, self._root, SCHEMA)
        return contents(find(self._root, steps), steps[-1])

    def holds(self, path: str) -> bool:
        """Whether the text has a field path.

        Raises:
            ConfigError: there is no such field.
        """
        return bool(self.values(path))

    def edited(self, changes: Mapping[str, Value | None]) -> ModelConfig:
        """The config with fields changed, and no other byte.

        A change to what is there already changes nothing. New fields, and the messages and map entries on the way to
        them, are added in the file's own style; `[*]` of an empty list adds the first element. Where a removed field
        leaves its line empty, the line goes, with the comment on it.

        Args:
            changes: By field path: a value, the whole list of a repeated field (or its only value), `EMPTY` for a
                message that must be there, or None to remove the field. Made in the order of the mapping.

        Raises:
            ConfigError: there is no such field, it does not take the value, or the changes contradict each other or
                the rest of the config.
        """
        text, expected = self.text, expectation.read(self._root, SCHEMA)
        made: list[tuple[str, Steps, Value]] = []
        for path, value in changes.items():
            root = parse(text, self.source)
            steps = resolve(path, root, SCHEMA)
            try:
                new = () if value is None else fitting(value, steps[-1])
                if new == ():
                    for gone in to_remove(root, steps):
                        text = edits.taken_out(text, self.source, gone)
                        expectation.remove(expected, gone)
                else:
                    text = edits.put(text, self.source, steps, new)
                    expectation.put(expected, steps, new)
            except ConfigError as error:
                raise ConfigError(f"{path}: {error}") from None
            made.append((path, steps, new))
        return self._with(text, made, expected)

    def _with(self, text: str, made: Sequence[tuple[str, Steps, Value]], expected: expectation.Contents) -> ModelConfig:
        """The config of an edited text.

        Raises:
            ConfigError: it is no config, does not say what is expected, or an edit undoes another one.
        """
        paths = ", ".join(path for path, _, _ in made)
        try:
            after = replace(self, text=text)
        except ConfigError as error:
            raise ConfigError(f"after the edit of {paths}: {error}") from None
        if expectation.read(parse(text, self.source), SCHEMA) != expected:
            raise ConfigError(f"{self.source}: the edit of {paths} would change other fields, too")
        for path, steps, new in made:
            if not expectation.is_made(expected, steps, new):
                raise ConfigError(f"{self.source}: edits of {paths} contradict each other: {path} would be undone")
        return after

    @cached_property
    def _root(self) -> Message:
        return parse(self.text, self.source)

    @cached_property
    def _proto(self) -> model_config_pb2.ModelConfig:
        return to_proto(self.text, self.source, self._root)
