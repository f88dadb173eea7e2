"""A concrete syntax tree of protobuf's text format.

Nodes hold no text, but offsets into the parsed text. So an edit is a splice of that text, and all other bytes stay:
comments, white space, order, and fields that no schema knows.

Source of the grammar: https://protobuf.dev/reference/protobuf/textformat-spec/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tuner.config.literals import EscapeError, number, unquoted
from tuner.config.tokens import Token, error_at, line_of, tokens
from tuner.core.errors import ConfigError

MAX_DEPTH = 100
"""The deepest nesting of messages; Triton's own schema needs 6."""

_CLOSING = {"{": "}", "<": ">"}


@dataclass(frozen=True)
class Scalar:
    """A value that is no message.

    Attributes:
        start: Offset of its first character in the text.
        end: Offset behind its last.
        kind: How it is written; adjacent string literals are one `string`.
        value: The decoded value: a str for `string`, a number for `number`, the bare word for `name`. Bytes of a string
            that are not UTF-8 become lone surrogates.
    """

    start: int
    end: int
    kind: Literal["string", "number", "name"]
    value: float | str


@dataclass(frozen=True)
class MessageValue:
    """`{ ... }`, `< ... >`, or the whole text.

    Attributes:
        start: Offset of the opening delimiter.
        inner: Offset behind it.
        close: Offset of the closing delimiter.
        end: Offset behind it.
        fields: The fields, in the order of the text.
    """

    start: int
    inner: int
    close: int
    end: int
    fields: tuple[Field, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole text, which has no delimiters."""
        return self.inner == self.start


@dataclass(frozen=True)
class ListValue:
    """`[a, b]`.

    Attributes:
        start: Offset of the opening bracket.
        end: Offset behind the closing one.
        items: The items, in the order of the text.
        commas: Offsets of the commas between them.
    """

    start: int
    end: int
    items: tuple[Scalar | MessageValue, ...]
    commas: tuple[int, ...]


@dataclass(frozen=True)
class Field:
    """One field of the text, `name: value`.

    Attributes:
        start: Offset of the name.
        end: Offset behind the separator if there is one, else behind the value.
        name: The name as written; an extension or type URL includes its brackets, without white space.
        value: The value, or a list of values.
        separator: The `,` or `;` after the value; empty: none.
    """

    start: int
    end: int
    name: str
    value: Scalar | MessageValue | ListValue
    separator: str


@dataclass(frozen=True)
class Slot:
    """The place of one value: the only value of a field, or an item of its list.

    Attributes:
        message: The message of the field.
        field: The field of the value.
        index: The index in the field's list; None: the field has no list.
        node: The value.
    """

    message: MessageValue
    field: Field
    index: int | None
    node: Scalar | MessageValue


def slots(message: MessageValue, name: str | None = None) -> Iterator[Slot]:
    """The values of a message in the order of the text; with `name`, only those of the fields of that name."""
    for field in message.fields:
        if name is not None and field.name != name:
            continue
        if isinstance(field.value, ListValue):
            for index, item in enumerate(field.value.items):
                yield Slot(message, field, index, item)
        else:
            yield Slot(message, field, None, field.value)


def descendants(message: MessageValue) -> Iterator[Slot]:
    """The values of a message and of all messages within, in the order of the text."""
    for slot in slots(message):
        yield slot
        if isinstance(slot.node, MessageValue):
            yield from descendants(slot.node)


@lru_cache(maxsize=64)  # an edit parses the same text several times
def parse(text: str, source: str) -> MessageValue:
    """Parse a text, and return the message that is the whole text.

    Raises:
        ConfigError: the text violates the format: `SOURCE:LINE:COLUMN: what is wrong`.
    """
    return _Parser(text, source).root()


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._tokens = list(tokens(text, source))
        self._next = 0
        self._depth = 0

    def root(self) -> MessageValue:
        fields = []
        while self._token.kind != "end":
            fields.append(self._field())
        return MessageValue(0, 0, len(self._text), len(self._text), tuple(fields))

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._token
        self._next += 1
        return token

    def _at(self, *symbols: str) -> bool:
        return self._token.kind == "symbol" and self._token.text in symbols

    def _error(self, offset: int, what: str) -> ConfigError:
        return error_at(self._text, self._source, offset, what)

    def _expected(self, what: str) -> ConfigError:
        return self._error(self._token.start, f"expected {what}, found {self._token}")

    def _field(self) -> Field:
        start = self._token.start
        name = self._name()
        colon = self._take() if self._at(":") else None
        value: Scalar | MessageValue | ListValue
        if self._at("["):
            value = self._list(self._value if colon else self._message)
        elif colon or self._at("{", "<"):
            value = self._value()
        else:
            raise self._expected(f"':' or '{{' after {name!r}")
        separator = self._take() if self._at(",", ";") else None
        return Field(start, separator.end if separator else value.end, name, value, separator.text if separator else "")

    def _name(self) -> str:
        if self._at("["):
            return self._bracketed_name()
        if self._token.kind == "name" or (self._token.kind == "number" and self._token.text.isdecimal()):
            return self._take().text
        raise self._expected("a field name")

    def _bracketed_name(self) -> str:
        parts = [self._take().text]
        while self._token.kind in {"name", "number"} or self._at(".", "/", "-"):
            parts.append(self._take().text)
        if not self._at("]") or len(parts) == 1:
            raise self._expected("the name of an extension and ']'")
        return "".join([*parts, self._take().text])

    def _list(self, item: Callable[[], Scalar | MessageValue]) -> ListValue:
        opening = self._take()
        items: list[Scalar | MessageValue] = []
        commas: list[int] = []
        while not self._at("]"):
            if items:
                if not self._at(","):
                    raise self._expected("',' or ']'")
                commas.append(self._take().start)
            items.append(item())
        return ListValue(opening.start, self._take().end, tuple(items), tuple(commas))

    def _value(self) -> Scalar | MessageValue:
        return self._message() if self._at("{", "<") else self._scalar()

    def _message(self) -> MessageValue:
        if not self._at("{", "<"):
            raise self._expected("'{'")
        opening = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(opening.start, f"messages nest deeper than {MAX_DEPTH}")
        fields = []
        while not self._at("}", ">") and self._token.kind != "end":
            fields.append(self._field())
        if not self._at(_CLOSING[opening.text]):
            line = line_of(self._text, opening.start)
            raise self._expected(f"{_CLOSING[opening.text]!r} for the {opening} of line {line}")
        self._depth -= 1
        closing = self._take()
        return MessageValue(opening.start, opening.end, closing.start, closing.end, tuple(fields))

    def _scalar(self) -> Scalar:
        if self._token.kind == "string":
            return self._string()
        if self._token.kind == "name":
            word = self._take()
            return Scalar(word.start, word.end, "name", word.text)
        if self._token.kind == "number" or self._at("-"):
            return self._number()
        raise self._expected("a value")

    def _string(self) -> Scalar:
        start, end, content = self._token.start, self._token.end, b""
        while self._token.kind == "string":
            try:
                content += unquoted(self._token.text)
            except EscapeError as error:
                raise self._error(self._token.start + error.offset, str(error)) from None
            end = self._take().end
        return Scalar(start, end, "string", content.decode(errors="surrogateescape"))

    def _number(self) -> Scalar:
        start = self._token.start
        sign = self._take().text if self._at("-") else ""
        token = self._take()
        value = number(sign + token.text) if token.kind in {"number", "name"} else None
        if value is None:
            raise self._error(token.start, f"expected a number, found {token}")
        return Scalar(start, token.end, "number", value)
