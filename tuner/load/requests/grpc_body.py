"""Serialises requests for gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from tuner.core.errors import InputError
from tuner.load.requests.message import RequestMessage, Slice
from tuner.options.parameters import Parameter

MOST_BYTES = 2**31 - 1
"""The largest request in bytes: protobuf sizes have 31 bits."""


def check_size(model: str, size: int) -> None:
    """Check that a request is not too large.

    Args:
        model: The name of the model, for the message.
        size: Bytes of its tensors.

    Raises:
        InputError: it is larger than 2 GiB.
    """
    if size > MOST_BYTES:
        raise InputError(f"a request to model {model!r} has {size / 2**30:.1f} GiB; the limit of gRPC is 2 GiB")


def grpc_body(message: RequestMessage) -> bytes:
    """The serialised `ModelInferRequest`.

    Raises:
        InputError: it is larger than 2 GiB.
    """
    raw = [tensor.content for tensor in message.inputs if isinstance(tensor.content, bytes)]
    check_size(message.model, sum(map(len, raw)))
    request = service_pb2.ModelInferRequest(
        model_name=message.model, model_version=message.version, raw_input_contents=raw
    )
    for tensor in message.inputs:
        described = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if isinstance(tensor.content, Slice):
            _set(described, tensor.content.parameters)
    for name, place in message.outputs.items():
        output = request.outputs.add(name=name)
        if place is not None:
            _set(output, place.parameters)
    _set(request, message.parameters)
    serialised: bytes = request.SerializeToString()
    return serialised


def _set(message: Any, parameters: Mapping[str, Parameter]) -> None:
    for name, value in parameters.items():
        message.parameters[name].CopyFrom(_parameter(name, value))


def _parameter(name: str, value: Parameter) -> service_pb2.InferParameter:
    if isinstance(value, bool):
        return service_pb2.InferParameter(bool_param=value)
    if isinstance(value, str):
        return service_pb2.InferParameter(string_param=value)
    if isinstance(value, float):
        return service_pb2.InferParameter(double_param=value)
    # Triton expects an unsigned priority, and signed integers otherwise.
    if name == "priority":
        return service_pb2.InferParameter(uint64_param=value)
    return service_pb2.InferParameter(int64_param=value)
