"""The outputs that an answer holds, as tensors with values."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from tuner.load.inputs.tensors import DTYPES, InputTensor, split_texts, text_array


def read_outputs(answer: bytes) -> tuple[InputTensor, ...]:
    """Read a serialised `ModelInferResponse`, its outputs in `raw_output_contents`; parameters and ids are left out.

    Raises:
        ValueError: it is none, or its bytes do not make the tensors that it says; one line says why.
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
    """The tensor whose raw form these bytes are; see `InputTensor.raw`.

    Raises:
        ValueError: they are not; one line says why.
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
