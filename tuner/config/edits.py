"""Edits of a text, as splices that change only the named field; a removed value takes its comma and line along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.config import literals
from tuner.config.insertion import behind, instead, into_list, into_message
from tuner.config.layout import (
    Splice,
    Style,
    begins_line,
    blank_before,
    blank_behind,
    line_start,
    rest_of_line,
    spliced,
)
from tuner.config.paths import EVERY, Index, Key, Segment, Segments, choose, find, parents
from tuner.config.pbtxt import Field, ListValue, MessageValue, Scalar, Slot, descendants, parse, slots
from tuner.config.schema import is_map, named_by, spelled
from tuner.config.values import EMPTY, Empty, Value, contents, shows
from tuner.core.errors import ConfigError

_BLANK = " \t"


def put(text: str, source: str, segments: Segments, value: Value) -> str:
    """The text with the fields at a path set to a value; missing parent messages are added."""
    text = _without(text, source, _surplus(parse(text, source), segments, value))
    root = parse(text, source)
    return spliced(text, _Put(text, Style.of(text, root), value).within(root, None, segments))


def taken_out(text: str, source: str, segments: Segments) -> str:
    """The text without the values that a path names."""
    return _without(text, source, find(parse(text, source), segments))


def _without(text: str, source: str, unwanted: Sequence[Slot]) -> str:
    for start in sorted((slot.node.start for slot in unwanted), reverse=True):
        # From the last to the first, so that earlier offsets stay valid.
        slot = next(slot for slot in descendants(parse(text, source)) if slot.node.start == start)
        text = spliced(text, removal(text, slot))
    return text


def _surplus(root: MessageValue, segments: Segments, value: Value) -> list[Slot]:
    """The values to remove before a value is set, so that of several fields of one name only the last remains."""
    surplus: list[Slot] = []
    for parent in parents(root, segments[:-1]):
        chosen = choose(parent, segments[-1])
        if not isinstance(value, Empty) and not shows(contents(chosen, segments[-1]), value):
            surplus += [slot for slot in chosen if slot.field is not chosen[-1].field]
    return surplus


@dataclass(frozen=True)
class _Put:
    """Sets one value; each method gives the splices for a part of the text."""

    text: str
    style: Style
    value: Value

    def within(self, message: MessageValue, owner: Slot | None, segments: Segments) -> Iterator[Splice]:
        """The splices that set the value at the end of the segments, from a message on."""
        segment, below = segments[0], segments[1:]
        chosen = choose(message, segment)
        if not chosen:
            yield from self._add(message, owner, segments)
        elif below:
            for slot in chosen:
                if not isinstance(slot.node, MessageValue):
                    raise ConfigError(f"{segment.name} is not a message")
                yield from self.within(slot.node, slot, below)
        elif not self._is_there(chosen, segment):
            slot = chosen[-1]
            value = slot.node if isinstance(segment.pick, Index) else slot.field.value
            yield Splice(value.start, value.end, self._literal(segment, slot.node))

    def _is_there(self, chosen: Sequence[Slot], segment: Segment) -> bool:
        if isinstance(self.value, Empty) != isinstance(chosen[-1].node, MessageValue):
            raise ConfigError(
                f"{segment.name} is {'not a message' if self.value is EMPTY else 'a message; set its fields'}"
            )
        return self.value is EMPTY or shows(contents(chosen, segment), self.value)

    def _literal(self, segment: Segment, instead_of: Scalar | MessageValue | None = None) -> str:
        old = instead_of if isinstance(instead_of, Scalar) else None
        if isinstance(self.value, Empty):
            return self.value.value
        if isinstance(self.value, tuple):
            return self.style.list_of(spelled(item, segment.field, old) for item in self.value)
        return spelled(self.value, segment.field, old)

    def _add(self, message: MessageValue, owner: Slot | None, segments: Segments) -> list[Splice]:
        name = segments[0].name
        there = [field for field in message.fields if field.name == name]
        lines = self._lines(segments, len(list(slots(message, name))))
        if not there:
            return into_message(self.text, self.style, message, owner, lines)
        last = there[-1]
        if not isinstance(last.value, ListValue):
            return behind(self.text, self.style, message, last, lines)
        if not last.value.items:
            return [instead(self.text, self.style, last, lines)]
        return into_list(self.text, self.style, last.value, [lines[0].removeprefix(name).lstrip(": "), *lines[1:]])

    def _lines(self, segments: Segments, present: int = 0) -> list[str]:
        """The lines of a new field; `present` fields of its name exist already."""
        segment, below = segments[0], segments[1:]
        if isinstance(segment.pick, Index) and segment.pick.number > present:
            raise ConfigError(
                f"no {segment.name}[{segment.pick.number}]; the next one to add is {segment.name}[{present}]"
            )
        if segment.field and is_map(segment.field) and segment.pick is EVERY:
            raise ConfigError(f"{segment.name} has no entries; name the key to add")
        if not below and not isinstance(segment.pick, Key):
            return [f"{segment.name} {{ }}" if self.value is EMPTY else f"{segment.name}: {self._literal(segment)}"]
        lines = self._lines(below) if below else []
        if isinstance(segment.pick, Key):
            lines.insert(0, f"{named_by(segment.field) or 'key'}: {literals.spelled(segment.pick.value)}")
        return [f"{segment.name} {{", *(self.style.indent + line for line in lines), "}"]


def removal(text: str, slot: Slot) -> list[Splice]:
    """The splices that remove a value, or its whole field if the field has no other value."""
    value = slot.field.value
    if slot.index is None or not isinstance(value, ListValue) or len(value.items) == 1:
        return [_field(text, slot.message, slot.field)]
    return _item(text, value, slot.index)


def _field(text: str, message: MessageValue, field: Field) -> Splice:
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
    """Cut a piece: with its lines if only a comment would remain on them, else with the space on one side."""
    rest = rest_of_line(text, end)
    if rest is not None and begins_line(text, start):
        newline = text.find("\n", rest)
        return Splice(line_start(text, start), newline + 1 if newline >= 0 else len(text))
    if rest is not None or (text[end] in "}>]" and not begins_line(text, start)):
        return Splice(blank_before(text, start), end)
    return Splice(start, blank_behind(text, end))
