"""Parameters of requests, which Triton hands to the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tuner.core.errors import nearest

Parameter = bool | int | float | str

_FORM = "write it as NAME:VALUE:TYPE, such as max_tokens:256:int"
MOST_INT64, MOST_UINT64 = 2**63 - 1, 2**64 - 1
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_OWN_OPTIONS = ("priority", "timeout")


def parse_parameter(text: str) -> tuple[str, Parameter]:
    """Read `NAME:VALUE:TYPE`; the value may have colons in it.

    The type is `bool` (`true` or `false`), `int`, `uint` (an `int` that is not negative), `float`, `double` (the
    same), or `string`.

    Raises:
        ValueError: one line that says what would be right.
    """
    name, _, rest = text.partition(":")
    value, separator, kind = rest.rpartition(":")
    if not name or not separator:
        raise ValueError(f"{text!r} is not a parameter; {_FORM}")
    if kind not in _READERS:
        raise ValueError(f"{text!r} has the type {kind!r}{nearest(kind, _READERS)}")
    try:
        parameter = _READERS[kind](value)
    except ValueError:
        raise ValueError(f"{text!r}: {value!r} is not a value of type {kind}; {_FORM}") from None
    check_parameter(name, parameter)
    return name, parameter


def check_parameter(name: str, value: Parameter) -> None:
    """See that a parameter can be sent.

    Raises:
        ValueError: Triton keeps the name for itself, or the value is beyond what a request can say.
    """
    if name in _OWN_OPTIONS:
        raise ValueError(f"parameter {name!r} is Triton's own, and has an option of its own")
    if name in _SEQUENCE or name == "binary_data_output" or name.startswith("triton_"):
        raise ValueError(f"parameter {name!r} is Triton's own, and set where it is needed")
    if isinstance(value, int) and not -MOST_INT64 - 1 <= value <= MOST_INT64:
        raise ValueError(f"parameter {name!r}: {value} does not fit into 64 bits with a sign, as Triton wants it")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"parameter {name!r}: {value} is not finite")


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
