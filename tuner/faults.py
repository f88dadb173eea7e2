"""What pydantic finds wrong, in words for people."""

from __future__ import annotations

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuner.errors import nearest

_WHOLE, _NUMBER, _SWITCH = "is no whole number", "is no number", "is neither true nor false"
_LIST, _MAPPING = "is no list", "is no mapping"
# By pydantic's names of what is wrong; what it names otherwise it says itself.
_WORDS = {
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
    "string_type": "is no text",
    "greater_than_equal": "is too little; the least is {ge:g}",
    "greater_than": "is too little; it must be more than {gt:g}",
    "less_than_equal": "is too much; the most is {le:g}",
    "less_than": "is too much; it must be less than {lt:g}",
}


def most_telling(error: ValidationError) -> ErrorDetails:
    """The one fault to name: a name that is not known comes before what is then missing."""
    faults = error.errors(include_url=False)
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def in_words(fault: ErrorDetails) -> str:
    """What is wrong, and what would be right; not where."""
    kind, given, limits = fault["type"], fault["input"], fault.get("ctx", {})
    if kind in {"literal_error", "enum"}:
        return f"{given!r} is not known{nearest(str(given), _known(str(limits.get('expected', ''))))}"
    if kind in _WORDS:
        return f"{given!r} {_WORDS[kind].format(**limits)}"
    if kind == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    return f"{fault['msg']} (it is {given!r})"


def _known(expected: str) -> list[str]:
    """The words, or numbers, one of which it should have been."""
    return re.findall(r"'([^']*)'", expected) or re.findall(r"\d+", expected)
