"""What pydantic finds wrong, in words for people."""

from __future__ import annotations

import re
from reprlib import Repr
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuner.core.errors import nearest

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
    "greater_than_equal": "is too little; the least is {ge}",
    "greater_than": "is too little; it must be more than {gt}",
    "less_than_equal": "is too much; the most is {le}",
    "less_than": "is too much; it must be less than {lt}",
}


_SHOWN = Repr()
_SHOWN.maxlevel, _SHOWN.maxlist, _SHOWN.maxtuple, _SHOWN.maxdict, _SHOWN.maxset = 3, 6, 6, 6, 6
_SHOWN.maxstring = _SHOWN.maxother = 200


def shown(value: Any) -> str:
    """A value in an error: as Python writes it, but of one that is large only a part."""
    return _SHOWN.repr(value)


def most_telling(error: ValidationError) -> ErrorDetails:
    """The one fault to name: a name that is not known comes before what is then missing."""
    faults = error.errors(include_url=False)
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def in_words(fault: ErrorDetails) -> str:
    """What is wrong, and what would be right; not where."""
    kind, given = fault["type"], shown(fault["input"])
    limits = {name: _limit(value) for name, value in fault.get("ctx", {}).items()}
    if kind in {"literal_error", "enum"}:
        return f"{given} is not known{nearest(str(fault['input']), _known(str(limits.get('expected', ''))))}"
    if kind in _WORDS:
        return f"{given} {_WORDS[kind].format(**limits)}"
    if kind == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    return f"{fault['msg']} (it is {given})"


def _limit(value: Any) -> Any:
    return f"{value:.15g}" if isinstance(value, float) else value


def _known(expected: str) -> list[str]:
    """The words, or numbers, one of which it should have been."""
    return re.findall(r"'([^']*)'", expected) or re.findall(r"\d+", expected)
