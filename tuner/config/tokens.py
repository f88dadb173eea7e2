"""The tokens of protobuf's text format, and errors with their line and column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tuner.core.errors import ConfigError

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\v\f]+)
      | (?P<comment>\#[^\n]*)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>(?:[0-9]|\.[0-9])(?:[eE][+-](?=[0-9])|[A-Za-z0-9_.])*)
      | (?P<string>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
      | (?P<symbol>[{}<>\[\]:;,./-])""",
    re.VERBOSE,
)

_SURROGATE = re.compile("[\\ud800-\\udfff]")


@dataclass(frozen=True)
class Token:
    """A token of the text, and its place.

    Attributes:
        kind: `name`, `number`, `string`, `symbol`, or `end` for the empty token after the last one.
    """

    kind: str
    start: int
    end: int
    text: str

    def __str__(self) -> str:
        return (
            repr(self.text if len(self.text) <= 40 else f"{self.text[:37]}...") if self.text else "the end of the file"
        )


def tokens(text: str, source: str) -> Iterator[Token]:
    """The tokens of a text without white space and comments; the last one is of kind `end`.

    Raises:
        ConfigError: no token begins with a character of the text.
    """
    if lone := _SURROGATE.search(text):
        raise error_at(text, source, lone.start(), f"{lone[0]!r} cannot be written as UTF-8")
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            raise error_at(text, source, position, _puzzle(text[position]))
        if match.lastgroup not in {"space", "comment"}:
            yield Token(str(match.lastgroup), position, match.end(), match[0])
        position = match.end()
    yield Token("end", position, position, "")


def error_at(text: str, source: str, offset: int, what: str) -> ConfigError:
    """An error with the line and column of `offset`, both from 1; a tab is one column."""
    return ConfigError(f"{source}:{line_of(text, offset)}:{offset - text.rfind(chr(10), 0, offset)}: {what}")


def line_of(text: str, offset: int) -> int:
    """The line of an offset, from 1."""
    return text.count("\n", 0, offset) + 1


def _puzzle(char: str) -> str:
    if char in "\"'":
        return "the string is not closed on its line"
    if char == "\ufeff":
        return "there is a byte order mark; save the file as UTF-8 without one"
    return f"{char!r} has no meaning here"
