"""Values of fields: which ones a field takes, and which ones a text has."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from tuner.config import literals
from tuner.config.paths import Segment
from tuner.config.pbtxt import MessageValue, Slot
from tuner.config.schema import Plain, checked, is_map, is_message, is_repeated, meaning
from tuner.core.errors import ConfigError


class Empty(Enum):
    """The type of `EMPTY`."""

    EMPTY = "{ }"


EMPTY = Empty.EMPTY
"""A message. As an edit: an empty message is added if there is none; else it stays as it is."""

Single = Plain | Empty
"""A value (of an enum: its name), or a message."""

Value = Single | tuple[Plain, ...]
"""A value that a field can be set to; a repeated field is set to a whole list."""


def fitting(value: Value, segment: Segment) -> Value:
    """Convert a value for the field at the end of a path; a single value for a repeated field becomes a list.

    Raises:
        ConfigError: the field does not take the value.
    """
    field = segment.field
    if field and is_message(field):
        if value is EMPTY and not is_map(field):
            return value
        raise ConfigError("is a map; name the entry" if is_map(field) else "is a message; set its fields")
    if isinstance(value, Empty):
        if field:
            raise ConfigError("is not a message")
        return value
    if field and is_repeated(field) and not isinstance(value, tuple):
        return (checked(value, field),)
    if not isinstance(value, tuple):
        return checked(value, field)
    if field and not is_repeated(field):
        raise ConfigError(f"must be one value, got {list(value)}")
    return tuple(checked(item, field) for item in value)


def contents(places: Sequence[Slot], segment: Segment) -> tuple[Single, ...]:
    """The values in the places that a path with this last segment names."""
    return tuple(EMPTY if isinstance(slot.node, MessageValue) else meaning(slot.node, segment.field) for slot in places)


def shows(items: Sequence[Single], value: Value) -> bool:
    """Whether these are the values of a field that is set to a value."""
    wanted = value if isinstance(value, tuple) else (value,)
    return [_comparable(item) for item in items] == [_comparable(item) for item in wanted]


def _comparable(value: Single) -> str:
    # As literals, so that nan is itself, and neither 1 and true nor 0.0 and -0.0 are the same.
    return value.value if isinstance(value, Empty) else literals.spelled(value)
