"""The option `request_parameter`: parameters of requests, which Triton passes to the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tuner.core.errors import nearest

Parameter = bool | int | float | str

_FORM = "write it as NAME:VALUE:TYPE, such as max_tokens:256:int"
MOST_INT64, MOST_UINT64 = 2**63 - 1, 2**64 - 1
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
# By parameter: the option to use instead.
_OPTIONS = {"priority": "--priority", "timeout": "--queue-timeout"}


def parse_parameter(text: str) -> tuple[str, Parameter]:
    """Read `NAME:VALUE:TYPE`; the value may have colons in it.

    The type is `bool` (`true` or `false`), `int`, `uint` (an `int` that is not negative), `float`, `double` (the
    same), or `string`.

    Raises:
        ValueError: the text is wrong; the message is one line with the fix.
    """
    name, _, rest = text.partition(":")
    value, separator, kind = rest.rpartition(":")
    if not name or not separator:
        raise ValueError(f"{text!r} is not a parameter; {_FORM}")
    if kind not in _READERS:
        raise ValueError(f"{text!r} has the unknown type {kind!r}{nearest(kind, _READERS)}")
    try:
        parameter = _READERS[kind](value)
    except ValueError:
        raise ValueError(f"{text!r}: {value!r} is not a value of type {kind}; {_FORM}") from None
    check_parameter(name, parameter)
    return name, parameter


def check_parameter(name: str, value: Parameter) -> None:
    """Check that a parameter can be sent.

    Raises:
        ValueError: Triton reserves the name, or a request cannot hold the value.
    """
    if name in _OPTIONS:
        raise ValueError(f"parameter {name!r} is reserved; use {_OPTIONS[name]}")
    if name in _SEQUENCE or name == "binary_data_output" or name.startswith("triton_"):
        raise ValueError(f"parameter {name!r} is reserved; tritontune sets it")
    if isinstance(value, int) and not -MOST_INT64 - 1 <= value <= MOST_INT64:
        raise ValueError(f"parameter {name!r}: {value} must fit into 64 bits with sign")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"parameter {name!r}: {value} must be finite")


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _read_uint(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError(text)
    return value


_READERS: Mapping[str, Callable[[str], Parameter]] = {
    "bool": _read_bool,
    "int": int,
    "uint": _read_uint,
    "float": float,
    "double": float,
    "string": str,
}
