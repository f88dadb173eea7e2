"""The layout of a text: lines, indentation, and splices that change pieces of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tuner.config.pbtxt import ListValue, MessageValue, descendants

_BLANK = " \t\r\v\f"
_REST_OF_LINE = re.compile(r"[ \t\r\v\f]*(?:#[^\n]*)?(?=\n|\Z)")


@dataclass(frozen=True)
class Splice:
    """Replaces the piece from offset `start` to `end` by `text`."""

    start: int
    end: int
    text: str = ""


def spliced(text: str, splices: Iterable[Splice]) -> str:
    """The text after all splices, which must not overlap. Splices at the same offset are applied in their order."""
    parts, position = [], 0
    for splice in sorted(splices, key=lambda s: s.start):
        parts += [text[position : splice.start], splice.text]
        position = splice.end
    return "".join([*parts, text[position:]])


def line_start(text: str, offset: int) -> int:
    """The offset at which the line of an offset begins."""
    return text.rfind("\n", 0, offset) + 1


def indentation(text: str, offset: int) -> str:
    """The white space at the beginning of the line."""
    line = text[line_start(text, offset) : offset]
    return line[: len(line) - len(line.lstrip(_BLANK))]


def begins_line(text: str, offset: int) -> bool:
    """Whether only white space precedes an offset on its line."""
    return not text[line_start(text, offset) : offset].strip(_BLANK)


def rest_of_line(text: str, offset: int) -> int | None:
    """The offset of the line's end, if only white space and a comment follow an offset on its line; else None.

    The end is before the newline and its carriage return.
    """
    rest = _REST_OF_LINE.match(text, offset)
    if not rest:
        return None
    end = rest.end()
    return end - 1 if end > offset and text[end - 1 : end + 1] == "\r\n" else end


def blank_before(text: str, offset: int) -> int:
    """The offset at which the white space before an offset begins, on the same line."""
    return len(text[:offset].rstrip(_BLANK))


def blank_behind(text: str, offset: int) -> int:
    """The offset at which the white space behind an offset ends, on the same line."""
    return len(text) - len(text[offset:].lstrip(_BLANK))


@dataclass(frozen=True)
class Style:
    """The style of a text.

    Attributes:
        newline: The end of its lines.
        indent: White space that each level of messages adds.
        padding: White space inside the brackets of a list.
    """

    newline: str
    indent: str
    padding: str

    @classmethod
    def of(cls, text: str, root: MessageValue) -> Style:
        """The style of a text. Features that the text does not show are as in Triton's documentation."""
        newline = "\r\n" if re.search(r"^[^\n]*\r\n", text) else "\n"
        return cls(newline, _indent(text, root), _padding(text, root))

    def list_of(self, items: Iterable[str]) -> str:
        """`[ a, b ]` or `[a, b]`."""
        return f"[{self.padding}{', '.join(items)}{self.padding}]"


def _indent(text: str, root: MessageValue) -> str:
    for slot in descendants(root):
        parent, start = slot.message, slot.field.start
        if parent is root or not begins_line(text, start):
            continue
        outer, inner = indentation(text, parent.start), indentation(text, start)
        if inner.startswith(outer) and len(inner) > len(outer):
            return inner[len(outer) :]
    return "  "


def _padding(text: str, root: MessageValue) -> str:
    lists = (slot.field.value for slot in descendants(root) if not isinstance(slot.node, MessageValue))
    for value in lists:
        if isinstance(value, ListValue):
            return " " if text[value.start + 1] in _BLANK else ""
    return " "
