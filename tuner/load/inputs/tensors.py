"""Tensors with their values, and what requests are made of."""

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
"""How an `InputTensor` keeps each of KServe's datatypes."""


@dataclass(frozen=True)
class InputTensor:
    """One input of a request, or one output that a right answer has.

    Attributes:
        name: As the config has it.
        datatype: KServe's name, such as `FP32`.
        values: The whole tensor, with the batch dimension in front when the model is batched. BYTES are an array of
            `bytes` objects; BF16, which numpy does not know, are the upper 16 bits of FP32 as `uint16`.
    """

    name: str
    datatype: str
    values: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return self.values.shape

    def raw(self) -> bytes:
        """The values in row-major order, little-endian; each element of BYTES behind its length in 4 bytes."""
        if self.datatype != "BYTES":
            return self.values.tobytes()
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in self.values.flat)


RequestInputs = tuple[InputTensor, ...]


@dataclass(frozen=True)
class Step:
    """What one request says, and what the answer must be.

    Attributes:
        inputs: Optional ones may be missing.
        expected: Outputs whose values are known; empty: any answer without error is right.
    """

    inputs: RequestInputs
    expected: tuple[InputTensor, ...] = ()


Stream = tuple[Step, ...]
"""Steps in the order in which a sequence sends them."""


def dtype_of(where: str, datatype: str) -> np.dtype[Any]:
    """How values of a datatype are kept.

    Args:
        where: Whose datatype it is, for the error.
        datatype: KServe's name.

    Raises:
        InputError: it is not known here.
    """
    if datatype not in DTYPES:
        raise InputError(f"{where} has unsupported datatype {datatype} (supported: {', '.join(DTYPES)})")
    return DTYPES[datatype]


def fixed_bytes(datatype: str, shape: tuple[int, ...]) -> int | None:
    """How many bytes a tensor has; None: that depends on its values, or on dimensions that are variable."""
    if datatype == "BYTES" or datatype not in DTYPES or -1 in shape:
        return None
    return DTYPES[datatype].itemsize * math.prod(shape)


def split_texts(raw: bytes) -> list[bytes]:
    """The elements of a tensor of BYTES in its raw form.

    Raises:
        ValueError: it does not consist of texts behind their lengths.
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
    """An array of `bytes` objects, which numpy would rather not make."""
    array = np.empty(len(texts), dtype=np.object_)
    array[:] = texts
    return array.reshape(shape)
