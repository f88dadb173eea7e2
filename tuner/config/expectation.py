"""The contents of a text as plain data, and edits of that data, with which an edited text is compared."""

from __future__ import annotations

import copy
from typing import Any, TypeAlias

from tuner.config import literals
from tuner.config.paths import Index, Key, Segment, Segments
from tuner.config.pbtxt import MessageValue, slots
from tuner.config.schema import field_of, meaning, named_by
from tuner.config.values import Empty, Value

Contents: TypeAlias = "dict[str, list[Contents | str]]"
"""A message: its values by field name, in the order of the text. Each is a message, or a literal in a normalised
spelling."""


def read(message: MessageValue, schema: Any) -> Contents:
    """The contents of a message of a text, including fields that the schema does not know."""
    contents: Contents = {}
    for slot in slots(message):
        field = field_of(schema, slot.field.name)
        if isinstance(slot.node, MessageValue):
            value: Contents | str = read(slot.node, field and field.message_type)
        else:
            value = literals.spelled(meaning(slot.node, field))
        contents.setdefault(slot.field.name, []).append(value)
    return contents


def put(contents: Contents, segments: Segments, value: Value) -> None:
    """Set the fields at a path to a value; missing parent messages are added."""
    segment, below = segments[0], segments[1:]
    values = contents.setdefault(segment.name, [])
    if not (below or isinstance(value, Empty)):
        new = value if isinstance(value, tuple) else (value,)
        chosen = slice(segment.pick.number, segment.pick.number + 1) if isinstance(segment.pick, Index) else slice(None)
        values[chosen] = [literals.spelled(item) for item in new]
        return
    if not _chosen(values, segment):
        name = named_by(segment.field) or "key"
        values.append({name: [literals.spelled(segment.pick.value)]} if isinstance(segment.pick, Key) else {})
    for child in [values[place] for place in _chosen(values, segment)]:
        if below and isinstance(child, dict):
            put(child, below, value)


def remove(contents: Contents, segments: Segments) -> None:
    """Remove the values that a path names, if there are any."""
    segment, below = segments[0], segments[1:]
    values = contents.get(segment.name, [])
    for place in reversed(_chosen(values, segment)):
        child = values[place]
        if not below:
            del values[place]
        elif isinstance(child, dict):
            remove(child, below)
    if not values:
        contents.pop(segment.name, None)


def is_made(contents: Contents, segments: Segments, value: Value) -> bool:
    """Whether an edit still holds after later edits, that is, whether repeating it changes nothing.

    The removal of an element by its index always holds: later elements have moved to its index.
    """
    again = copy.deepcopy(contents)
    if value != ():
        put(again, segments, value)
    elif not isinstance(segments[-1].pick, Index):
        remove(again, segments)
    return again == contents


def _chosen(values: list[Contents | str], segment: Segment) -> list[int]:
    """The indices of the values that a segment picks."""
    places = range(len(values))
    if isinstance(segment.pick, Index):
        return list(places[segment.pick.number : segment.pick.number + 1])
    if isinstance(segment.pick, Key):
        return [place for place in places if _key(values[place], segment) == literals.spelled(segment.pick.value)]
    return list(places)


def _key(entry: Contents | str, segment: Segment) -> Contents | str | None:
    """The key of a map entry, or the name of a message of a list; the default one if it has none."""
    name = named_by(segment.field) or "key"
    key = field_of(segment.field.message_type, name) if segment.field else None
    written = entry.get(name) if isinstance(entry, dict) else None
    return written[-1] if written else literals.spelled(key.default_value) if key else None
