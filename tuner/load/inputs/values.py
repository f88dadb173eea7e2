"""Converts numbers and texts of a file to a datatype, without changing values."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.load.inputs.tensors import DTYPES, split_texts, text_array

_LONGEST_QUOTE = 40
# The kinds of NumPy dtypes that may be converted, by datatype or by its kind.
_KINDS = {"BYTES": "SU", "BF16": "f", "b": "b", "f": "fiu", "i": "iu", "u": "iu"}


class ElementError(ValueError):
    """One of several values is wrong.

    Args:
        message: The fault of the value.
        index: The row-major index of the value.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


def flatten(nested: list[Any]) -> tuple[list[Any], tuple[int, ...]]:
    """The elements of nested lists in row-major order, and their shape.

    Raises:
        ValueError: the lists are ragged.
    """
    flat, shape = nested, [len(nested)]
    while list in (kinds := set(map(type, flat))):
        lengths = {len(row) for row in flat if isinstance(row, list)}
        if len(kinds) > 1 or len(lengths) > 1:
            raise ValueError("ragged lists: all lists of one level must have the same length")
        shape.append(lengths.pop())
        flat = list(itertools.chain.from_iterable(flat))
    return flat, tuple(shape)


def from_list(values: Sequence[Any], datatype: str) -> npt.NDArray[Any]:
    """JSON values as a one-dimensional array. Floats are rounded to the nearest.

    Raises:
        ElementError: a value does not fit the datatype.
    """
    try:
        return _convert(values, datatype)
    except ValueError:
        # The fast conversion of all values has failed; single conversions find the wrong value.
        for index, value in enumerate(values):
            try:
                _convert([value], datatype)
            except ValueError as error:
                raise ElementError(str(error), index) from None
        raise


def from_base64(text: str, datatype: str) -> npt.NDArray[Any]:
    """The raw bytes of a tensor in base64, as a one-dimensional array.

    Raises:
        ValueError: the text is not base64, or its bytes are not whole values.
    """
    raw, dtype = _decoded(text), DTYPES[datatype]
    if datatype == "BYTES":
        texts = split_texts(raw)
        return text_array(texts, (len(texts),))
    if len(raw) % dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes are not a multiple of {dtype.itemsize}, the size of {datatype}")
    return np.frombuffer(raw, dtype)


def from_array(array: npt.NDArray[Any], datatype: str) -> npt.NDArray[Any]:
    """An array from a file, converted to a datatype.

    Texts are NumPy's `S` and `U`; BF16 is made from floats, or read as `ml_dtypes` stores it.

    Raises:
        ValueError: its dtype or a value does not fit the datatype.
    """
    if datatype == "BF16" and array.dtype == np.dtype("V2"):
        return array.view(DTYPES["BF16"])
    if array.dtype.kind not in _KINDS.get(datatype, _KINDS.get(DTYPES[datatype].kind, "")):
        raise ValueError(f"an array of {array.dtype} cannot be converted to {datatype}")
    if datatype == "BYTES":
        return (array if array.dtype.kind == "S" else np.char.encode(array, "utf-8")).astype(np.object_)
    if datatype == "BOOL":
        return array
    return _integers(array, datatype) if _is_integer(datatype) else _floats(array, datatype)


def _convert(values: Sequence[Any], datatype: str) -> npt.NDArray[Any]:
    kinds = set(map(type, values))
    if datatype == "BYTES":
        return text_array([_text(value) for value in values], (len(values),))
    if datatype == "BOOL":
        if not (kinds <= {bool, int} and set(values) <= {0, 1}):
            raise ValueError(f"{_quoted(values[0])} is neither true nor false")
        return np.array(values, np.bool_)
    if _is_integer(datatype):
        if not kinds <= {int}:
            raise ValueError(f"{_quoted(values[0])} is not an integer")
        return _integers(np.array(values, np.object_), datatype)
    if not kinds <= {int, float}:
        raise ValueError(f"{_quoted(values[0])} is not a number")
    try:
        doubles = np.array(values, np.float64)
    except OverflowError:
        raise ValueError(f"{_quoted(values[0])} is out of the range of {datatype}") from None
    return _floats(doubles, datatype)


def _is_integer(datatype: str) -> bool:
    return DTYPES[datatype].kind in "iu" and datatype != "BF16"


def _integers(array: npt.NDArray[Any], datatype: str) -> npt.NDArray[Any]:
    limits = np.iinfo(DTYPES[datatype])
    for extreme in (array.min(), array.max()) if array.size else ():
        if not limits.min <= int(extreme) <= limits.max:
            raise ValueError(f"{extreme} is out of the range of {datatype}, {limits.min} to {limits.max}")
    return array.astype(DTYPES[datatype])


def _floats(array: npt.NDArray[Any], datatype: str) -> npt.NDArray[Any]:
    dtype = np.dtype(np.float32) if datatype == "BF16" else DTYPES[datatype]
    with np.errstate(over="ignore"):
        floats = array.astype(dtype)
    result = _upper_half(floats) if datatype == "BF16" else floats
    seen = (result.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else floats
    if (lost := np.isfinite(array) & ~np.isfinite(seen)).any():
        raise ValueError(f"{array[lost][0]:g} is out of the range of {datatype}")
    return result


def _upper_half(floats: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper 16 bits of FP32 values, rounded to the nearest, ties to even."""
    bits = floats.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # Rounding could turn NaN into infinity, so a bit is set instead.
    return np.where(np.isnan(floats), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def _text(value: Any) -> bytes:
    if isinstance(value, dict) and value.keys() == {"b64"}:
        return _decoded(value["b64"])
    if not isinstance(value, str):
        raise ValueError(f"{_quoted(value)} is not a string")  # noqa: TRY004 (the file is wrong, not the caller)
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{_quoted(value)} has a lone surrogate, which UTF-8 cannot encode") from None


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{_quoted(text)} is not a base64 string")  # noqa: TRY004 (the same)
    try:
        # Some tools insert line breaks.
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise ValueError(f"{_quoted(text)} is not base64") from None


def _quoted(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 3]}..."
