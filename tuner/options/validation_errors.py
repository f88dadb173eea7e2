"""Words of our own for the errors that pydantic finds."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_WHOLE, _NUMBER, _SWITCH = "must be a whole number", "must be a number", "must be true or false"
_LIST, _MAPPING = "must be a list", "must be a mapping"
# By pydantic's type of error. Other types keep pydantic's own message.
_RULES = {
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_type": _WHOLE,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "finite_number": _NUMBER,
    "bool_parsing": _SWITCH,
    "bool_type": _SWITCH,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "string_type": "must be text",
    "too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
# The same for limits of numbers. A number from the command line is a text, shown without quotes.
_LIMITS = {
    "greater_than_equal": "must be >= {ge}",
    "greater_than": "must be > {gt}",
    "less_than_equal": "must be <= {le}",
    "less_than": "must be < {lt}",
}

_QUOTE = "'"
_SHOWN = Repr()
_SHOWN.maxlevel, _SHOWN.maxlist, _SHOWN.maxtuple, _SHOWN.maxdict, _SHOWN.maxset = 3, 6, 6, 6, 6
_SHOWN.maxstring = _SHOWN.maxother = 200


def shown(value: Any) -> str:
    """A value for an error message, as Python writes it; a large value is shortened."""
    return _SHOWN.repr(value)


def first_fault(error: ValidationError) -> ErrorDetails:
    """The error to report: unknown names come first, as they explain missing ones."""
    faults = error.errors(include_url=False)
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def describe(fault: ErrorDetails) -> str:
    """The rule and the given value, without the option: `must be >= 0, got -1`."""
    kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    values = {name: f"{value:.15g}" if isinstance(value, float) else value for name, value in context.items()}
    words = shown(given)
    if kind in _LIMITS:
        return f"{_LIMITS[kind].format(**values)}, got {words.strip(_QUOTE)}"
    rule = _RULES[kind].format(**values) if kind in _RULES else fault["msg"]
    return f"{rule}, got {words}"
