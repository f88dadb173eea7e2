"""Values of fields: the values that a field takes, and the values in a text."""

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
"""A message. As an edit: adds an empty message if there is none; else changes nothing."""

Single = Plain | Empty
"""A value (for an enum value, its name), or a message."""

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
    """The values in some places of a text; `segment`, the last one of their path, tells how to read them."""
    return tuple(EMPTY if isinstance(slot.node, MessageValue) else meaning(slot.node, segment.field) for slot in places)


def shows(items: Sequence[Single], value: Value) -> bool:
    """Whether the values of a field equal a value that the field can be set to."""
    wanted = value if isinstance(value, tuple) else (value,)
    return [_comparable(item) for item in items] == [_comparable(item) for item in wanted]


def _comparable(value: Single) -> str:
    # Compared as literals: nan equals nan, but 1 differs from true, and 0.0 from -0.0.
    return value.value if isinstance(value, Empty) else literals.spelled(value)
