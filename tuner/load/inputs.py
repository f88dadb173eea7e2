"""Random inputs for a model, from what its config says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.errors import InputError, nearest
from tuner.models.interface import ModelInterface, Tensor

_FLOATS: Mapping[str, type[np.floating[Any]]] = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
_INTEGERS: Mapping[str, type[np.integer[Any] | np.bool_]] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
_TEXT_LENGTH = 8


@dataclass(frozen=True)
class InputTensor:
    """One input of one request.

    Attributes:
        name: As the config has it.
        datatype: KServe's name, such as `FP32`.
        values: The whole tensor, with the batch dimension in front when the model is batched. BYTES are an array of
            `bytes` objects; BF16, which numpy does not know, are the upper 16 bits of FP32 as `uint16`.
    """

    name: str
    datatype: str
    values: npt.NDArray[Any]


RequestInputs = tuple[InputTensor, ...]


def make_inputs(
    interface: ModelInterface, *, shapes: Mapping[str, tuple[int, ...]], pool: int, seed: int
) -> tuple[RequestInputs, ...]:
    """Make up the inputs of `pool` different requests, each of batch size 1.

    Floats lie in [0, 1); integers are 0 or 1, which are valid as token, type and mask alike; BYTES are 8 letters.
    Optional inputs are left out unless a shape is given for them.

    Args:
        interface: What the model takes.
        shapes: Dimensions by input, without the batch dimension; needed where the config leaves one variable.
        pool: How many requests to make.
        seed: The same seed makes the same inputs.

    Raises:
        InputError: a shape is missing, contradicts the config, or names no input; or a datatype cannot be made up.
    """
    known = {tensor.name for tensor in interface.inputs}
    for name in shapes:
        if name not in known:
            raise InputError(f"model {interface.name!r} has no input {name!r}{nearest(name, known)}")
    dims = {
        tensor.name: _dims(interface, tensor, shapes.get(tensor.name))
        for tensor in interface.inputs
        if tensor.name in shapes or not tensor.optional
    }
    rng = np.random.default_rng(seed)
    return tuple(
        tuple(
            InputTensor(tensor.name, tensor.datatype, _random(interface, tensor, dims[tensor.name], rng))
            for tensor in interface.inputs
            if tensor.name in dims
        )
        for _ in range(pool)
    )


def _dims(interface: ModelInterface, tensor: Tensor, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape to send, batch dimension included."""
    where = f"input {tensor.name!r} of model {interface.name!r} has shape {list(tensor.shape)}"
    if given is None:
        if -1 in tensor.shape:
            raise InputError(f"{where}; say which with --shape {tensor.name}:{_asked(tensor.shape)}")
        given = tensor.shape
    if len(given) != len(tensor.shape):
        hint = " (without the batch dimension)" if interface.batched else ""
        raise InputError(f"{where}, so --shape {tensor.name}:{_text(given)} has the wrong number of dimensions{hint}")
    if any(fixed not in (-1, asked) for fixed, asked in zip(tensor.shape, given, strict=True)):
        raise InputError(
            f"{where}, which --shape {tensor.name}:{_text(given)} contradicts; only dimensions of -1 are free"
        )
    return (1, *given) if interface.batched else given


def _asked(shape: tuple[int, ...]) -> str:
    """The shape as a person would have to complete it: `D1,128` for [-1, 128]."""
    return ",".join(f"D{place}" if dim == -1 else str(dim) for place, dim in enumerate(shape, start=1))


def _text(dims: tuple[int, ...]) -> str:
    return ",".join(map(str, dims))


def _random(
    interface: ModelInterface, tensor: Tensor, dims: tuple[int, ...], rng: np.random.Generator
) -> npt.NDArray[Any]:
    if tensor.datatype in _FLOATS:
        return _below_one(rng, dims).astype(_FLOATS[tensor.datatype])
    if tensor.datatype == "BF16":
        return (_below_one(rng, dims).view(np.uint32) >> 16).astype(np.uint16)
    if tensor.datatype in _INTEGERS:
        return rng.integers(0, 2, dims, dtype=np.uint8).astype(_INTEGERS[tensor.datatype])
    if tensor.datatype == "BYTES":
        return _texts(rng, dims)
    raise InputError(
        f"input {tensor.name!r} of model {interface.name!r} has datatype {tensor.datatype}; "
        f"values are known for {', '.join([*_FLOATS, 'BF16', *_INTEGERS, 'BYTES'])}"
    )


def _below_one(rng: np.random.Generator, dims: tuple[int, ...]) -> npt.NDArray[np.float32]:
    # FP16 would round what lies between 0.9998 and 1 up to 1.
    return np.asarray(rng.random(dims, dtype=np.float32) * np.float32(0.999))


def _texts(rng: np.random.Generator, dims: tuple[int, ...]) -> npt.NDArray[np.object_]:
    letters = _LETTERS[rng.integers(0, len(_LETTERS), (*dims, _TEXT_LENGTH))]
    texts = np.empty(dims, dtype=np.object_)
    for place in np.ndindex(*dims):
        texts[place] = letters[place].tobytes()
    return texts
