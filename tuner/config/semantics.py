"""Reads the text of a config.pbtxt into a protobuf, as far as our schema knows its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2

from tuner.config.layout import Splice, spliced
from tuner.config.literals import in_python_spelling
from tuner.config.pbtxt import ListValue, MessageValue, Scalar
from tuner.config.schema import field_of, is_unknown_word, is_utf8
from tuner.config.tokens import error_at
from tuner.core.errors import ConfigError

SCHEMA = model_config_pb2.ModelConfig.DESCRIPTOR
"""The message type of a config.pbtxt."""


def to_proto(text: str, source: str, root: MessageValue) -> model_config_pb2.ModelConfig:
    """Read a text whose tree is `root` into a protobuf.

    Raises:
        ConfigError: a field has a wrong value, occurs twice, or excludes another one: `SOURCE:LINE:COLUMN: ...`.
    """
    readable = spliced(text, _Readable(text, source).within(root, SCHEMA))
    proto = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(readable, proto)
    except text_format.ParseError as error:
        raise _located(error, readable, source) from None
    except ValueError as error:  # an enum number beyond 32 bits, for which the parser reports no place
        raise ConfigError(f"{source}: {error}") from None
    return proto


def unknown_fields(message: MessageValue, schema: Any = SCHEMA) -> Iterator[str]:
    """Dotted names of the fields of a text whose name or enum value our schema does not know."""
    for field in message.fields:
        descriptor = field_of(schema, field.name)
        values = field.value.items if isinstance(field.value, ListValue) else (field.value,)
        if descriptor is None or any(
            isinstance(value, Scalar) and is_unknown_word(value, descriptor) for value in values
        ):
            yield field.name
            continue
        for value in values:
            if isinstance(value, MessageValue):
                yield from (f"{field.name}.{name}" for name in unknown_fields(value, descriptor.message_type))


def _located(error: text_format.ParseError, text: str, source: str) -> ConfigError:
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    lines = text.split("\n")
    what = str(error).removeprefix(f"{line}:{column} : ").removeprefix(f"'{lines[line - 1]}': ").rstrip(".")
    return error_at(text, source, sum(len(before) + 1 for before in lines[: line - 1]) + column - 1, what)


@dataclass(frozen=True)
class _Readable:
    """Makes a text readable for Python's parser, by splices of equal length that keep lines and columns.

    Fields that our schema does not know become white space. Spellings that only the C++ parser reads are rewritten.
    """

    text: str
    source: str

    def within(self, message: MessageValue, schema: Any) -> Iterator[Splice]:
        for field in message.fields:
            descriptor = field_of(schema, field.name)
            values = field.value.items if isinstance(field.value, ListValue) else (field.value,)
            scalars = [value for value in values if isinstance(value, Scalar)]
            if descriptor is None or any(is_unknown_word(value, descriptor) for value in scalars):
                yield Splice(field.start, field.end, _blank(self.text[field.start : field.end]))
                continue
            for scalar in scalars:
                spelling = self._spelling(scalar, descriptor)
                yield Splice(scalar.start, scalar.end, spelling.rjust(scalar.end - scalar.start))
            for value in values:
                if isinstance(value, MessageValue):
                    yield from self.within(value, descriptor.message_type)

    def _spelling(self, scalar: Scalar, field: FieldDescriptor) -> str:
        piece = self.text[scalar.start : scalar.end]
        if scalar.kind == "string":
            if field.type == FieldDescriptor.TYPE_STRING and not is_utf8(str(scalar.value)):
                raise error_at(self.text, self.source, scalar.start, "the string is not UTF-8")
            return in_python_spelling(piece)
        if field.type == FieldDescriptor.TYPE_BOOL and scalar.value in {0, 1}:
            return str(scalar.value)
        if piece.startswith("-"):
            digits = piece[1:].rsplit(maxsplit=1)[-1]
            return f"{_blank(piece[1 : len(piece) - len(digits)])}-{digits}"
        return piece


def _blank(piece: str) -> str:
    return re.sub(r"[^\n]", " ", piece)
