"""Fields in Triton's schema: the values that they take, and how to read and write them.

`None` is a field that the schema does not know; it takes any value.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tuner.config import literals
from tuner.config.pbtxt import Scalar
from tuner.core.errors import ConfigError, nearest

Plain = bool | int | float | str
"""A value that is neither a message nor a list; for an enum value, its name."""

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_INT64: range(-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT32: range(2**32),
    FieldDescriptor.CPPTYPE_UINT64: range(2**64),
}
_FLOATS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}
_TRUE = {"true", "True", "t", 1}
# Execution accelerators, and resources of the rate limiter.
_NAMED = {"Accelerator", "Resource"}
_ENUM_VALUE = re.compile(r"[A-Z][A-Z0-9_]*")


def is_message(field: FieldDescriptor) -> bool:
    """Whether a field holds messages."""
    return field.message_type is not None


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field is repeated."""
    # `label` is deprecated, and `is_repeated` is new. In every version of protobuf, the default of a repeated field is
    # a list.
    return bool(field.default_value == [])


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field's messages are the entries of a map."""
    return is_message(field) and bool(field.message_type.GetOptions().map_entry)


def named_by(field: FieldDescriptor | None) -> str:
    """The field by which paths pick a message: `key` in a map, `name` in lists that have one per name; else empty."""
    if field is None or not is_message(field):
        return ""
    return "key" if is_map(field) else "name" if field.message_type.name in _NAMED else ""


def takes_text(field: FieldDescriptor | None) -> bool:
    """Whether a field holds text that is not the name of an enum value."""
    return field is not None and field.cpp_type == FieldDescriptor.CPPTYPE_STRING


def field_of(message: Any, name: str) -> FieldDescriptor | None:
    """The field of a message descriptor by its name; None if the descriptor is None or has no such field."""
    return message.fields_by_name.get(name) if message else None


def is_unknown_word(node: Scalar, field: FieldDescriptor) -> bool:
    """Whether a bare word is an enum value that this schema does not know; a newer Triton may know it."""
    return field.enum_type is not None and node.kind == "name" and node.value not in field.enum_type.values_by_name


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode a text, which then has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def meaning(node: Scalar, field: FieldDescriptor | None) -> Plain:
    """The value of a scalar of the text, by the type of its field."""
    if field is None:
        return node.value == "true" if node.kind == "name" and node.value in {"true", "false"} else node.value
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return node.value in _TRUE
    if field.cpp_type in _FLOATS:
        return float(node.value)
    if field.enum_type is not None and node.value in field.enum_type.values_by_number:
        return str(field.enum_type.values_by_number[node.value].name)
    return node.value


def checked(value: Plain, field: FieldDescriptor | None) -> Plain:
    """Convert a value for its field.

    Raises:
        ConfigError: the field does not take the value.
    """
    if isinstance(value, str) and not is_utf8(value):
        raise ConfigError(f"{value!r} cannot be written as UTF-8")
    if field is None:
        return value
    if field.enum_type is not None:
        names = field.enum_type.values_by_name
        if value not in names:
            raise ConfigError(f"unknown {field.enum_type.name} {value!r}{nearest(str(value), names)}")
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        _demand(isinstance(value, bool), "true or false", value)
    elif field.cpp_type in _FLOATS:
        _demand(isinstance(value, int | float) and not isinstance(value, bool), "a number", value)
        return float(value)
    elif allowed := _INTEGERS.get(field.cpp_type):
        _demand(type(value) is int and value in allowed, f"a whole number from {allowed[0]} to {allowed[-1]}", value)
    else:
        _demand(isinstance(value, str), "a string", value)
    return value


def spelled(value: Plain, field: FieldDescriptor | None, instead_of: Scalar | None = None) -> str:
    """Write a value for its field.

    Enum values are bare words. In a field that the schema does not know, a string is quoted or bare like the value that
    it replaces (`instead_of`). A new string is bare if it looks like an enum value.
    """
    if isinstance(value, str) and _is_bare(value, field, instead_of):
        return value
    return literals.spelled(value)


def _is_bare(value: str, field: FieldDescriptor | None, instead_of: Scalar | None) -> bool:
    if field is not None:
        return field.enum_type is not None
    return _ENUM_VALUE.fullmatch(value) is not None and (instead_of is None or instead_of.kind != "string")


def _demand(holds: bool, what: str, value: Plain) -> None:  # noqa: FBT001 (it is the demand)
    if not holds:
        raise ConfigError(f"must be {what}, got {value!r}")
