"""Removes one value from a text, with its comma, and with its line if only a comment would be left on it."""

from __future__ import annotations

from tuner.config.layout import Splice, begins_line, blank_before, blank_behind, line_start, rest_of_line
from tuner.config.pbtxt import Field, ListValue, Message, Slot

_BLANK = " \t"


def removal(text: str, slot: Slot) -> list[Splice]:
    """The splices that remove a value; its whole field, if it has no other value."""
    value = slot.field.value
    if slot.index is None or not isinstance(value, ListValue) or len(value.items) == 1:
        return [_field(text, slot.message, slot.field)]
    return _item(text, value, slot.index)


def _field(text: str, message: Message, field: Field) -> Splice:
    place = message.fields.index(field)
    if place and place == len(message.fields) - 1 and not field.separator:
        # `a: 1, b: 2` becomes `a: 1`, without the comma.
        before = message.fields[place - 1].value.end
        if text[before : field.start].strip(_BLANK) in {",", ";"}:
            return Splice(before, field.end)
    return _cut(text, field.start, field.end)


def _item(text: str, value: ListValue, index: int) -> list[Splice]:
    item = value.items[index]
    if index < len(value.commas):
        comma = value.commas[index]
        if not text[item.end : comma].strip(_BLANK):
            return [_cut(text, item.start, comma + 1)]
    else:
        comma, before = value.commas[-1], value.items[-2].end
        if text[before : item.start].strip(_BLANK) == ",":
            return [Splice(before, item.end)]
    return [Splice(comma, comma + 1), _cut(text, item.start, item.end)]


def _cut(text: str, start: int, end: int) -> Splice:
    """Cut a piece: with its lines if at most a comment would be left on them, else with the space on one side."""
    rest = rest_of_line(text, end)
    if rest is not None and begins_line(text, start):
        newline = text.find("\n", rest)
        return Splice(line_start(text, start), newline + 1 if newline >= 0 else len(text))
    if rest is not None or (text[end] in "}>]" and not begins_line(text, start)):
        return Splice(blank_before(text, start), end)
    return Splice(start, blank_behind(text, end))
