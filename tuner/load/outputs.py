"""Reads the outputs of an answer as tensors."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from tuner.load.inputs.tensors import DTYPES, InputTensor, split_texts, text_array


def read_outputs(answer: bytes) -> tuple[InputTensor, ...]:
    """The outputs of a serialised `ModelInferResponse` with `raw_output_contents`; parameters and ids are ignored.

    Raises:
        ValueError: the bytes are not such a message, or do not fit its tensors; one line says why.
    """
    try:
        response = service_pb2.ModelInferResponse.FromString(answer)
    except DecodeError:
        raise ValueError("the answer is not a valid ModelInferResponse") from None
    if len(response.outputs) != len(response.raw_output_contents):
        raise ValueError(
            f"the answer names {len(response.outputs)} outputs, but holds {len(response.raw_output_contents)}"
        )
    return tuple(
        tensor_of(output.name, output.datatype, tuple(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    )


def tensor_of(name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> InputTensor:
    """The tensor from its raw bytes; see `InputTensor.raw`.

    Raises:
        ValueError: the bytes do not fit datatype and shape; one line says why.
    """
    if datatype not in DTYPES:
        raise ValueError(f"output {name!r} has unsupported datatype {datatype}")
    texts = split_texts(raw) if datatype == "BYTES" else []
    dtype = DTYPES[datatype]
    count = len(texts) if datatype == "BYTES" else len(raw) / dtype.itemsize
    if count != math.prod(shape):
        raise ValueError(f"output {name!r}: {len(raw)} bytes do not fit {datatype} of shape {list(shape)}")
    values = text_array(texts, shape) if datatype == "BYTES" else np.frombuffer(raw, dtype).reshape(shape)
    return InputTensor(name, datatype, values)
