"""Serialises all requests of a workload before the load begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.config.interface import ModelInterface
from tuner.core.errors import InputError, JobError, nearest
from tuner.load.inputs.tensors import RequestStep, Stream
from tuner.load.requests.grpc_body import grpc_body
from tuner.load.requests.message import MessageInput, Places, RequestMessage, Slice
from tuner.load.workload import Request, Sequences, Workload
from tuner.options.endpoint import Protocol
from tuner.options.parameters import MOST_INT64, MOST_UINT64, Parameter, check_parameter


@dataclass(frozen=True)
class RequestOptions:
    """The contents of requests besides their inputs.

    Attributes:
        version: The model's version; empty: the server's choice.
        parameters: Request parameters by name; see `parse_parameter`.
        priority: The priority, for models with priority levels; 0: the model's default.
        timeout_us: Time-out in the model's queue, in us; 0: the model's default.
        batch_size: Inferences in each request.
        sequences: How requests form sequences; None for a stateless model.
        decoupled: Whether the model is decoupled.
        outputs: The outputs to request; empty: all.

    Raises:
        JobError: a value cannot be sent in a request.
    """

    version: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    timeout_us: int = 0
    batch_size: int = 1
    sequences: Sequences | None = None
    decoupled: bool = False
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            try:
                check_parameter(name, value)
            except ValueError as error:
                raise JobError(str(error)) from None
        if not 0 <= self.priority <= MOST_UINT64:
            raise JobError(f"priority must be between 0 and 2^64 - 1, got {self.priority}")
        if not 0 <= self.timeout_us <= MOST_INT64:
            raise JobError(f"queue time-out must be between 0 and 2^63 - 1 us, got {self.timeout_us}")
        if self.sequences and self.batch_size > 1:
            raise JobError(f"batch size must be 1 for a model with a sequence batcher, got {self.batch_size}")


def build_workload(
    interface: ModelInterface,
    streams: Sequence[Stream],
    options: RequestOptions,
    protocol: Protocol,
    places: Sequence[Sequence[Places]] | None = None,
) -> Workload:
    """Serialise every request once.

    Args:
        interface: The model's inputs and outputs.
        streams: The inputs of the requests.
        options: Their other contents.
        protocol: The protocol to serialise for.
        places: The slices of each request's tensors in shared memory; None: all tensors go over the network.

    Raises:
        JobError: HTTP does not support an option.
        InputError: the model has no such output, or a request is too large.
    """
    if options.decoupled and protocol == "http":
        raise JobError(f"model {interface.name!r} is decoupled, which HTTP does not support; use gRPC")
    _check_outputs(interface, streams, options)
    parameters = _parameters(options)
    placed = places or [[Places()] * len(stream) for stream in streams]
    return Workload(
        model=interface.name,
        streams=tuple(
            tuple(
                _request(_message(interface, step, options, parameters, where), step, protocol)
                for step, where in zip(stream, wheres, strict=True)
            )
            for stream, wheres in zip(streams, placed, strict=True)
        ),
        version=options.version,
        batch_size=options.batch_size,
        sequences=options.sequences,
        decoupled=options.decoupled,
    )


def _check_outputs(interface: ModelInterface, streams: Sequence[Stream], options: RequestOptions) -> None:
    outputs = [tensor.name for tensor in interface.outputs]
    for name in options.outputs:
        if name not in outputs:
            raise InputError(f"model {interface.name!r} has no output {name!r}{nearest(name, outputs)}")
    expected = {tensor.name for stream in streams for step in stream for tensor in step.expected}
    if options.outputs and (missing := expected - set(options.outputs)):
        raise InputError(f"validation_data has output {min(missing)!r}, which is not requested")


def _parameters(options: RequestOptions) -> Mapping[str, Parameter]:
    parameters = dict(options.parameters)
    if options.priority:
        parameters["priority"] = options.priority
    if options.timeout_us:
        parameters["timeout"] = options.timeout_us
    if options.decoupled:
        parameters["triton_enable_empty_final_response"] = True
    return parameters


def _message(
    interface: ModelInterface,
    step: RequestStep,
    options: RequestOptions,
    parameters: Mapping[str, Parameter],
    places: Places,
) -> RequestMessage:
    if any(interface.batched and tensor.shape[:1] != (options.batch_size,) for tensor in step.inputs):
        raise ValueError(f"the inputs do not have batch size {options.batch_size}")
    return RequestMessage(
        model=interface.name,
        version=options.version,
        parameters=parameters,
        inputs=tuple(
            MessageInput(tensor.name, tensor.datatype, tensor.shape, places.inputs.get(tensor.name) or tensor.raw())
            for tensor in step.inputs
        ),
        outputs={name: places.outputs.get(name) for name in options.outputs or places.outputs},
    )


def _request(message: RequestMessage, step: RequestStep, protocol: Protocol) -> Request:
    body, json_length = http_body(message) if protocol == "http" else (grpc_body(message), None)
    return Request(body, json_length, {tensor.name: tensor.raw() for tensor in step.expected})


def http_body(message: RequestMessage) -> tuple[bytes, int]:
    """The body, and its number of JSON bytes. The model and its version are part of the URL."""
    # `binary_data_output` does not affect outputs in shared memory.
    head: dict[str, Any] = {
        "parameters": {**message.parameters, "binary_data_output": True},
        "inputs": [_input(tensor) for tensor in message.inputs],
    }
    if message.outputs:
        head["outputs"] = [
            {"name": name} if place is None else {"name": name, "parameters": place.parameters}
            for name, place in message.outputs.items()
        ]
    described = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    raw = (tensor.content for tensor in message.inputs if isinstance(tensor.content, bytes))
    return b"".join((described, *raw)), len(described)


def _input(tensor: MessageInput) -> dict[str, Any]:
    content = tensor.content
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
        "parameters": content.parameters if isinstance(content, Slice) else {"binary_data_size": len(content)},
    }
