"""Generates inputs for a model from its config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError
from tuner.load.inputs.shapes import asked, batch_dims, check_shapes
from tuner.load.inputs.tensors import DTYPES, InputTensor, RequestStep, Stream, dtype_of, text_array

_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype=np.uint8)
_FLOATS = ("FP16", "FP32", "FP64")
# Each element of BYTES follows its length.
_LENGTH_BYTES = 4
_POOL_BYTES = 256 << 20
# Copies of a request in memory: first values and their source, later the message here and in the worker.
_COPIES = 2


@dataclass(frozen=True)
class _Texts:
    """The elements of BYTES: random letters, or one fixed text."""

    length: int
    fixed: bytes | None


def make_inputs(
    interface: ModelInterface,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    pool: int,
    seed: int,
    batch_size: int = 1,
    zero: bool = False,
    string_length: int = 8,
    string_data: str | None = None,
    check_size: Callable[[int], None] = lambda _size: None,
) -> Stream:
    """Generate the inputs of up to `pool` different requests; fewer if they are large (see `pool_of`).

    Floats are uniform in [0, 1). Integers are 0 or 1, which are valid tokens, types and masks. BYTES are letters.
    Optional inputs are left out unless a shape is given for them.

    Args:
        interface: The model's inputs.
        shapes: Shapes by input, without the batch dimension; required for variable dimensions.
        pool: Most requests to make.
        seed: Seed of the random values.
        batch_size: Inferences in each request.
        zero: Use zeros and empty texts instead.
        string_length: Letters in each element of BYTES.
        string_data: A fixed text for all elements of BYTES.
        check_size: Raises `InputError` if a request of that many bytes is too large; called first.

    Raises:
        InputError: a shape is missing or wrong; the batch size is too large; a datatype is not supported; or there is
            not enough memory.
    """
    check_shapes(interface, shapes)
    batch = batch_dims(interface, batch_size)
    tensors = [tensor for tensor in interface.inputs if tensor.name in shapes or not tensor.optional]
    dims = [batch + _dims(interface, tensor, shapes.get(tensor.name)) for tensor in tensors]
    for tensor in tensors:
        dtype_of(f"input {tensor.name!r} of model {interface.name!r}", tensor.datatype)
    texts = _Texts(string_length, None if string_data is None else string_data.encode(errors="surrogateescape"))
    size = sum(_size(tensor.datatype, shape, texts, zero=zero) for tensor, shape in zip(tensors, dims, strict=True))
    check_size(size)
    pool = pool_of(size, pool)
    rng = None if zero else np.random.default_rng(seed)

    def step() -> RequestStep:
        return RequestStep(
            tuple(
                InputTensor(tensor.name, tensor.datatype, _values(tensor.datatype, shape, texts, rng))
                for tensor, shape in zip(tensors, dims, strict=True)
            )
        )

    sizes = ", ".join(f"{tensor.name} {list(shape)}" for tensor, shape in zip(tensors, dims, strict=True))
    beyond = InputError(f"not enough memory for requests to model {interface.name!r} with {sizes}")
    if _COPIES * size > psutil.virtual_memory().available:
        raise beyond
    try:
        return (step(),) * pool if zero else tuple(step() for _ in range(pool))
    except (MemoryError, OverflowError, ValueError):  # the latter two for sizes beyond any memory
        raise beyond from None


def pool_of(size: int, most: int) -> int:
    """Number of requests of `size` bytes to hold: as many as fit into 256 MiB, at least 1 and at most `most`."""
    return max(1, min(most, _POOL_BYTES // max(size, 1)))


def _size(datatype: str, dims: tuple[int, ...], texts: _Texts, *, zero: bool) -> int:
    """Bytes of a tensor in a request."""
    if datatype != "BYTES":
        return DTYPES[datatype].itemsize * math.prod(dims)
    length = len(texts.fixed) if texts.fixed is not None else texts.length * (not zero)
    return (_LENGTH_BYTES + length) * math.prod(dims)


def _dims(interface: ModelInterface, tensor: Tensor, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one inference."""
    if given is None and -1 in tensor.shape:
        where = f"input {tensor.name!r} of model {interface.name!r}"
        raise InputError(f"{where} has variable shape {list(tensor.shape)}; set it by {asked(tensor)}")
    return tensor.shape if given is None else given


def _values(datatype: str, dims: tuple[int, ...], texts: _Texts, rng: np.random.Generator | None) -> npt.NDArray[Any]:
    """Random values; zeros if `rng` is None."""
    if datatype == "BYTES":
        return _text_values(dims, texts, rng)
    if rng is None:
        return np.zeros(dims, DTYPES[datatype])
    if datatype == "BF16":
        return (_below_one(rng, dims).view(np.uint32) >> 16).astype(np.uint16)
    if datatype in _FLOATS:
        return _below_one(rng, dims).astype(DTYPES[datatype])
    return np.asarray(rng.integers(0, 2, dims, dtype=np.uint8)).astype(DTYPES[datatype])


def _below_one(rng: np.random.Generator, dims: tuple[int, ...]) -> npt.NDArray[np.float32]:
    # FP16 would round values above 0.9998 to 1.
    return np.asarray(rng.random(dims, dtype=np.float32) * np.float32(0.999))


def _text_values(dims: tuple[int, ...], texts: _Texts, rng: np.random.Generator | None) -> npt.NDArray[np.object_]:
    count = math.prod(dims)
    if texts.fixed is not None or rng is None:
        return text_array([texts.fixed or b""] * count, dims)
    letters = _LETTERS[rng.integers(0, len(_LETTERS), (count, texts.length))]
    return text_array([row.tobytes() for row in letters], dims)
