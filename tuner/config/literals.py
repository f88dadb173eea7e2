"""Scalars of protobuf's text format: reads literals, and writes them.

Source: the text format specification, https://protobuf.dev/reference/protobuf/textformat-spec/. Where it is silent, the
C++ parser, which Triton uses.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    r"""\\(?:
        (?P<high>u[dD][89abAB][0-9a-fA-F]{2})\\(?P<low>u[dD][c-fC-F][0-9a-fA-F]{2})
      | (?P<char>[abfnrtv\\?'"])
      | (?P<octal>[0-7]{1,3})
      | x(?P<hex>[0-9a-fA-F]{1,2})
      | (?P<unicode>u(?![dD][89a-fA-F])[0-9a-fA-F]{4} | U(?:000[0-9a-fA-F]|0010)[0-9a-fA-F]{4})
      | (?P<wrong>.?)
    )""",
    re.VERBOSE | re.DOTALL,
)
_CHARS = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "?": 63, "'": 39, '"': 34}
_INTEGER = re.compile(r"(?P<hex>0[xX][0-9a-fA-F]+)|(?P<octal>0[0-7]+)|0|[1-9][0-9]*")
_FLOAT = re.compile(r"(?!0[0-9])(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_LONGEST_NUMBER = 1000  # longer than the digits of any double; int() refuses very long texts
_WORDS = {"inf": "inf", "infinity": "inf", "nan": "nan"}


class EscapeError(ValueError):
    """A string literal has an invalid escape sequence.

    Args:
        sequence: The sequence as written.
        offset: Its offset from the opening quote.
    """

    def __init__(self, sequence: str, offset: int) -> None:
        super().__init__(f"invalid escape sequence {sequence}")
        self.offset = offset


def unquoted(literal: str) -> bytes:
    """The bytes that one string literal, with its quotes, stands for.

    Raises:
        EscapeError: an escape sequence is invalid.
    """
    parts, position, body = [], 1, literal[:-1]
    for escape in _ESCAPE.finditer(body, 1):
        parts += [body[position : escape.start()].encode(), _meant(escape)]
        position = escape.end()
    return b"".join([*parts, body[position:].encode()])


def _meant(escape: re.Match[str]) -> bytes:
    if escape["char"]:
        return bytes([_CHARS[escape["char"]]])
    if escape["octal"] and int(escape["octal"], 8) < 256:
        return bytes([int(escape["octal"], 8)])
    if escape["hex"]:
        return bytes([int(escape["hex"], 16)])
    if escape["high"]:
        pair = int(escape["high"][1:], 16) << 16 | int(escape["low"][1:], 16)
        return pair.to_bytes(4, "big").decode("utf-16-be").encode()
    if escape["unicode"]:
        return chr(int(escape["unicode"][1:], 16)).encode()
    raise EscapeError(escape[0], escape.start())


def in_python_spelling(literal: str) -> str:
    r"""Rewrite a string literal for Python's parser, which does not read `\?`, surrogate pairs and `\u005c`.

    The result is never longer.
    """
    return _ESCAPE.sub(_respelled, literal)


def _respelled(escape: re.Match[str]) -> str:
    if escape["high"] or escape["char"] == "?":
        return _meant(escape).decode()
    # Python would decode it to a backslash, and then take the backslash for the beginning of an escape.
    return r"\\" if escape["unicode"] and _meant(escape) == b"\\" else escape[0]


def number(literal: str) -> int | float | None:
    """The number of a literal such as `-8`, `0x1F`, `017`, `.5f` or `-inf`; None if it is not a number."""
    if len(literal) > _LONGEST_NUMBER:
        return None
    sign, digits = (-1, literal[1:]) if literal.startswith("-") else (1, literal)
    if word := _WORDS.get(digits.lower()):
        return sign * float(word)
    if match := _INTEGER.fullmatch(digits):
        return sign * int(digits, 16 if match["hex"] else 8 if match["octal"] else 10)
    if _FLOAT.fullmatch(digits):
        return sign * float(digits.rstrip("fF"))
    return None


def spelled(value: bool | float | str) -> str:  # noqa: FBT001 (a value like any other here)
    """A value as a literal, strings in double quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(_escaped(char) for char in value)}"'
    return repr(value)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    named = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(char)
    return named or (char if char >= " " and char != "\x7f" else f"\\{ord(char):03o}")
