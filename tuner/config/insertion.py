"""Adds a field or list item to a text, in the style of its neighbours.

If its neighbours are on separate lines, it gets a new line with their indentation; else it joins their line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tuner.config.layout import Splice, Style, begins_line, indentation, line_start, rest_of_line
from tuner.config.pbtxt import Field, ListValue, MessageValue, Slot

_SEPARATOR = re.compile(r"[ \t]*[,;]?")


def into_message(
    text: str, style: Style, message: MessageValue, owner: Slot | None, lines: Sequence[str]
) -> list[Splice]:
    """The splices that add a field at the end of a message.

    Args:
        text: The text.
        style: Its style.
        message: The message to which the field is added.
        owner: The place of that message; None: the message is the whole text.
        lines: The lines of the field, indented as if its message began at column 1.
    """
    if message.fields:
        return behind(text, style, message, message.fields[-1], lines)
    if owner:
        return [_into_empty(text, style, message, owner, lines)]
    gap = style.newline if text and not text.endswith("\n") else ""
    return [Splice(len(text), len(text), gap + _block(style, "", lines) + style.newline)]


def behind(text: str, style: Style, message: MessageValue, anchor: Field, lines: Sequence[str]) -> list[Splice]:
    """The splices that add a field to a message, after the field `anchor`."""
    own_line = begins_line(text, anchor.start)
    if own_line or message.is_whole:
        rest = rest_of_line(text, anchor.end)
        at = anchor.end if rest is None else rest
        block = _block(style, indentation(text, anchor.start) if own_line else "", lines)
        return [Splice(at, at, style.newline + block + anchor.separator)]
    # On one line, the new field gets the separator of the other fields: `a: 1, b: 2` becomes `a: 1, b: 2, c: 3`.
    habit = "" if anchor.separator else max(field.separator for field in message.fields)
    return [Splice(anchor.end, anchor.end, f"{habit} {_one_line(lines)}{anchor.separator}")]


def into_list(text: str, style: Style, value: ListValue, lines: Sequence[str]) -> list[Splice]:
    """The splices that add an item to a list that is not empty."""
    last = value.items[-1]
    at, piece = last.end, f" {_one_line(lines)}"
    if begins_line(text, last.start):
        rest = rest_of_line(text, last.end)
        at = last.end if rest is None else rest
        piece = style.newline + _block(style, indentation(text, last.start), lines)
    return [Splice(last.end, last.end, ","), Splice(at, at, piece)]


def instead(text: str, style: Style, field: Field, lines: Sequence[str]) -> Splice:
    """The splice that replaces a field."""
    if begins_line(text, field.start):
        return Splice(field.start, field.value.end, _block(style, indentation(text, field.start), lines).lstrip())
    return Splice(field.start, field.value.end, _one_line(lines))


def _into_empty(text: str, style: Style, message: MessageValue, owner: Slot, lines: Sequence[str]) -> Splice:
    start = owner.field.start if owner.index is None else message.start
    outer = indentation(text, start)
    block = _block(style, outer + style.indent, lines) + style.newline
    if "\n" in text[message.inner : message.close]:
        at = line_start(text, message.close)
        return Splice(at, at, block)
    separator = _SEPARATOR.match(text, message.end)
    end = separator.end() if separator else message.end
    if begins_line(text, start) and rest_of_line(text, end) is not None:
        return Splice(message.inner, message.close, style.newline + block + outer)
    return Splice(message.inner, message.close, f" {_one_line(lines)} ")


def _block(style: Style, indent: str, lines: Sequence[str]) -> str:
    return style.newline.join(indent + line for line in lines)


def _one_line(lines: Sequence[str]) -> str:
    return " ".join(line.strip() for line in lines)
