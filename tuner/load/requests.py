"""Requests as they go over the wire, serialised before the load begins."""

from __future__ import annotations

from collections.abc import Sequence

from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from tuner.load.inputs import InputTensor, RequestInputs


def build_requests(model: str, pool: Sequence[RequestInputs]) -> tuple[bytes, ...]:
    """The serialised `ModelInferRequest` of each of the pool, asking for all outputs of the model's default version."""
    return tuple(_request(model, inputs) for inputs in pool)


def _request(model: str, inputs: RequestInputs) -> bytes:
    message = service_pb2.ModelInferRequest(model_name=model)
    for tensor in inputs:
        message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.values.shape)
        message.raw_input_contents.append(_raw(tensor))
    serialised: bytes = message.SerializeToString()
    return serialised


def _raw(tensor: InputTensor) -> bytes:
    """The tensor in row-major order; each element of BYTES behind its length, as Triton wants it."""
    if tensor.datatype == "BYTES":
        serialised: bytes = serialize_byte_tensor(tensor.values).item()
        return serialised
    return tensor.values.tobytes()
