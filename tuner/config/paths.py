"""Field paths such as `instance_group[*].count` or `parameters["KEY"].string_value`, and the fields they select."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tuner.config.literals import EscapeError, unquoted
from tuner.config.pbtxt import MessageValue, Scalar, Slot, slots
from tuner.config.schema import Plain, checked, field_of, is_map, is_message, is_repeated, meaning, named_by
from tuner.core.errors import ConfigError, nearest

_SEGMENT = re.compile(
    r"""(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    (?:\[(?:(?P<every>\*)|(?P<number>[0-9]{1,20})|(?P<key>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*'))\])?
    (?:\.(?=.)|\Z)""",
    re.VERBOSE,
)


class Every(Enum):
    """All of the field's values."""

    EVERY = "*"


@dataclass(frozen=True)
class Index:
    """The value at an index, from 0."""

    number: int


@dataclass(frozen=True)
class Key:
    """The entry of a map with a key, or the message of a list with a name."""

    value: Plain


Pick = Every | Index | Key
EVERY = Every.EVERY


@dataclass(frozen=True)
class Segment:
    """One segment of a path, looked up in the schema.

    A map entry takes two segments: the entry itself, and its `value`.

    Attributes:
        name: Name of the field.
        pick: The selected values of the field; `EVERY` for a field that is not repeated.
        field: Descriptor of the field; None: unknown to the schema.
    """

    name: str
    pick: Pick
    field: FieldDescriptor | None


Segments = tuple[Segment, ...]


def resolve(path: str, root: MessageValue, schema: Any) -> Segments:
    """Look a path up in the schema, a message descriptor.

    A field that the schema does not know is accepted if the text of `root` has it, with any field below it.

    Raises:
        ConfigError: the path is not valid, or the schema has no such field.
    """
    segments: Segments = ()
    matches = list(_matches(path))
    for number, match in enumerate(matches, 1):
        name = match["name"]
        field = field_of(schema, name)
        if schema and not field and not find(root, (*segments, Segment(name, EVERY, None))):
            raise ConfigError(f"{path}: {schema.name} has no field {name!r}{nearest(name, schema.fields_by_name)}")
        try:
            segments += _picked(match, field, last=number == len(matches))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        last = segments[-1].field
        if number < len(matches) and last and not is_message(last):
            raise ConfigError(f"{path}: {name} is not a message")
        schema = last and last.message_type
    return segments


def find(root: MessageValue, segments: Iterable[Segment]) -> list[Slot]:
    """The values in the text that a path names, in the order of the text."""
    matches: list[Slot] = []
    messages = [root]
    for segment in segments:
        matches = [slot for message in messages for slot in choose(message, segment)]
        messages = [slot.node for slot in matches if isinstance(slot.node, MessageValue)]
    return matches


def parents(root: MessageValue, way: Segments) -> list[MessageValue]:
    """The messages that a path names; without segments, the whole text."""
    return [slot.node for slot in find(root, way) if isinstance(slot.node, MessageValue)] if way else [root]


def to_remove(root: MessageValue, segments: Segments) -> list[Segments]:
    """The paths to remove so that the value at a path is removed.

    A map entry is removed together with its value, and also with the only field of its value. Otherwise
    `parameters { key: "k" value { } }` would remain, which Triton reads as an empty text.
    """
    last = segments[-1].field
    if last and last.containing_type.GetOptions().map_entry:
        return [segments[:-1]]
    entry = segments[-3] if len(segments) > 2 else None
    if not (entry and entry.field and is_map(entry.field)):
        return [segments]
    entries = find(root, segments[:-2])
    keys = dict.fromkeys(_key(slot.node, entry.field) for slot in entries)
    gone: list[Segments] = []
    for key in (key for key in keys if key is not None):
        way = (*segments[:-3], Segment(entry.name, Key(key), entry.field))
        values = parents(root, (*way, segments[-2]))
        emptied = bool(values) and all(
            {field.name for field in value.fields} == {segments[-1].name} for value in values
        )
        gone.append(way if emptied else (*way, *segments[-2:]))
    return gone


def choose(parent: MessageValue, segment: Segment) -> list[Slot]:
    """The values that a segment selects in a message."""
    candidates = list(slots(parent, segment.name))
    if isinstance(segment.pick, Index):
        return candidates[segment.pick.number : segment.pick.number + 1]
    if isinstance(segment.pick, Key):
        return [slot for slot in candidates if _key(slot.node, segment.field) == segment.pick.value]
    return candidates


def _key(entry: Scalar | MessageValue, field: FieldDescriptor | None) -> Plain | None:
    """The key of a map entry, or the name of a message of a list; the default one if it has none."""
    name = named_by(field) or "key"
    key = field_of(field.message_type, name) if field else None
    written = [slot.node for slot in slots(entry, name)] if isinstance(entry, MessageValue) else []
    if written and isinstance(written[-1], Scalar):
        return meaning(written[-1], key)
    return key.default_value if key else None


def _matches(path: str) -> Iterator[re.Match[str]]:
    position = 0
    while position < len(path) or not path:
        segment = _SEGMENT.match(path, position)
        if not segment:
            raise ConfigError(f'invalid field path {path!r}; write it as a.b, a[*].b, a[0].b or a["key"].b')
        yield segment
        position = segment.end()


def _picked(segment: re.Match[str], field: FieldDescriptor | None, *, last: bool) -> Segments:
    name = segment["name"]
    pick = _pick(segment)
    if field is None:
        return (Segment(name, pick or EVERY, None),)
    if is_map(field):
        return _into_map(name, pick, field, last=last)
    if isinstance(pick, Key) and not named_by(field):
        raise ConfigError(f"{name} is not a map")
    if pick and not (is_repeated(field) and is_message(field)):
        raise ConfigError(f"{name} is {'a list that is set as a whole' if is_repeated(field) else 'not a list'}")
    if is_repeated(field) and is_message(field) and not pick and not last:
        raise ConfigError(f"{name} is a list; write {name}[*] or {name}[0]")
    return (Segment(name, pick or EVERY, field),)


def _into_map(name: str, pick: Pick | None, field: FieldDescriptor, *, last: bool) -> Segments:
    key, value = (field.message_type.fields_by_name[part] for part in ("key", "value"))
    if pick is None and last:
        return (Segment(name, EVERY, field),)
    if isinstance(pick, Index) and isinstance(key.default_value, int):
        pick = Key(pick.number)
    if pick is not EVERY and not (isinstance(pick, Key) and type(pick.value) is type(key.default_value)):
        form = "1" if isinstance(key.default_value, int) else '"KEY"'
        raise ConfigError(f"{name} is a map; write {name}[{form}]")
    if isinstance(pick, Key):
        checked(pick.value, key)
    return (Segment(name, pick, field), Segment("value", EVERY, value))


def _pick(segment: re.Match[str]) -> Pick | None:
    if segment["every"]:
        return EVERY
    if segment["number"]:
        return Index(int(segment["number"]))
    if not segment["key"]:
        return None
    try:
        return Key(unquoted(segment["key"]).decode())
    except (EscapeError, UnicodeError) as error:
        raise ConfigError(f"invalid key {segment['key']}: {error}") from None
