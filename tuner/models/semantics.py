"""What the text of a config.pbtxt means to Triton's schema, as far as the schema here knows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tuner.errors import ConfigError
from tuner.models.layout import Splice, spliced
from tuner.models.literals import in_python_spelling
from tuner.models.pbtxt import Field, ListValue, Message, Scalar
from tuner.models.schema import field_of, is_unknown_word
from tuner.models.tokens import error_at

SCHEMA = model_config_pb2.ModelConfig.DESCRIPTOR
"""The message that a config.pbtxt is."""


def to_proto(text: str, source: str, root: Message) -> model_config_pb2.ModelConfig:
    """Read a text whose tree is `root` into a protobuf.

    Raises:
        ConfigError: a field does not take its value, stands twice, or excludes another one: `SOURCE:LINE:COLUMN: ...`.
    """
    # Of equal length, so that the parser's line and column are those of the text.
    readable = spliced(text, _made_readable(text, root, SCHEMA))
    proto = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(readable, proto)
    except text_format.ParseError as error:
        raise _located(error, text, source, readable) from None
    except ValueError as error:  # an enum's number beyond 32 bits: the parser has no place for that one
        raise ConfigError(f"{source}: {error}") from None
    return proto


def _located(error: text_format.ParseError, text: str, source: str, readable: str) -> ConfigError:
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    lines = readable.split("\n")
    what = str(error).removeprefix(f"{line}:{column} : ").removeprefix(f"'{lines[line - 1]}': ").rstrip(".")
    return error_at(text, source, sum(len(before) + 1 for before in lines[: line - 1]) + column - 1, what)


def _made_readable(text: str, message: Message, schema: Any) -> Iterator[Splice]:
    """Turn what our schema does not know into white space, and what Python's parser does not into what it does."""
    for field in message.fields:
        known = field_of(schema, field.name)
        values = list(_values(field))
        scalars = [value for value in values if isinstance(value, Scalar)]
        if known is None or any(is_unknown_word(value, known) for value in scalars):
            yield Splice(field.start, field.end, _blank(text[field.start : field.end]))
            continue
        for scalar in scalars:
            yield Splice(scalar.start, scalar.end, _respelled(text[scalar.start : scalar.end], scalar))
        for value in values:
            if isinstance(value, Message):
                yield from _made_readable(text, value, known.message_type)


def _values(field: Field) -> tuple[Scalar | Message, ...]:
    return field.value.items if isinstance(field.value, ListValue) else (field.value,)


def _blank(piece: str) -> str:
    return re.sub(r"[^\n]", " ", piece)


def _respelled(piece: str, scalar: Scalar) -> str:
    if scalar.kind == "string":
        return in_python_spelling(piece).rjust(len(piece))
    digits = piece.rsplit(maxsplit=1)[-1]
    gap = piece[1 : len(piece) - len(digits)]  # `- 8` is `-8`
    return f"{_blank(gap)}-{digits}" if digits != piece else piece
