"""Tensors with values, and steps, from which requests are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.core.errors import InputError

_LENGTH_BYTES = 4

DTYPES: Mapping[str, np.dtype[Any]] = {
    **{name: np.dtype(f"<f{size}") for name, size in (("FP16", 2), ("FP32", 4), ("FP64", 8))},
    "BF16": np.dtype("<u2"),
    "BOOL": np.dtype(np.bool_),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    "BYTES": np.dtype(np.object_),
}
"""The NumPy dtype for each KServe datatype in an `InputTensor`."""


@dataclass(frozen=True)
class InputTensor:
    """An input of a request, or an expected output.

    Attributes:
        name: Its name in the config.
        datatype: KServe's name, such as `FP32`.
        values: The whole tensor, with the batch dimension first if the model batches. BYTES are an array of `bytes`
            objects; BF16, which NumPy does not have, are the upper 16 bits of FP32 as `uint16`.
    """

    name: str
    datatype: str
    values: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.values.shape

    def raw(self) -> bytes:
        """The raw bytes: row-major, little-endian; each element of BYTES follows its length in 4 bytes."""
        if self.datatype != "BYTES":
            return self.values.tobytes()
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in self.values.flat)


RequestInputs = tuple[InputTensor, ...]


@dataclass(frozen=True)
class RequestStep:
    """The inputs of one request, and its expected outputs.

    Attributes:
        inputs: The inputs; optional ones may be missing.
        expected: Expected outputs; empty: any answer without error is correct.
    """

    inputs: RequestInputs
    expected: tuple[InputTensor, ...] = ()


Stream = tuple[RequestStep, ...]
"""Steps in the order in which a sequence sends them."""


def dtype_of(where: str, datatype: str) -> np.dtype[Any]:
    """The NumPy dtype for a datatype.

    Args:
        where: The tensor, for the message.
        datatype: KServe's name.

    Raises:
        InputError: the datatype is not supported.
    """
    if datatype not in DTYPES:
        raise InputError(f"{where} has unsupported datatype {datatype} (supported: {', '.join(DTYPES)})")
    return DTYPES[datatype]


def fixed_bytes(datatype: str, shape: tuple[int, ...]) -> int | None:
    """Bytes of a tensor; None: it depends on values or variable dimensions."""
    if datatype == "BYTES" or datatype not in DTYPES or -1 in shape:
        return None
    return DTYPES[datatype].itemsize * math.prod(shape)


def split_texts(raw: bytes) -> list[bytes]:
    """The elements of a BYTES tensor, from its raw bytes.

    Raises:
        ValueError: the bytes are not elements that follow their lengths.
    """
    texts, at = [], 0
    while at < len(raw):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            raise ValueError("not BYTES elements (each follows its length in 4 bytes, little-endian)")
        texts.append(raw[start:at])
    return texts


def text_array(texts: list[bytes], shape: tuple[int, ...]) -> npt.NDArray[np.object_]:
    """An object array of `bytes`; `np.array` would make a fixed-width array."""
    array = np.empty(len(texts), dtype=np.object_)
    array[:] = texts
    return array.reshape(shape)
