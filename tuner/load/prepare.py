"""Makes the plan of a load: the requests for a model, and the driver that sends them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from tuner.config.interface import ModelInterface
from tuner.config.warmup import WarmUpInput, WarmUpShape
from tuner.core.errors import JobError
from tuner.load.inputs.input_data import read_input_data
from tuner.load.inputs.made_up import make_inputs
from tuner.load.inputs.shapes import own_shapes
from tuner.load.inputs.tensors import InputTensor, Stream
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.requests.grpc_body import check_size
from tuner.load.requests.registries import open_registry
from tuner.load.requests.shared_memory import shared_workload
from tuner.load.workload import DriverName, Plan, Sequences, Workload
from tuner.options.endpoint import Endpoint
from tuner.options.groups import MADE_UP, LoadOptions, as_option

# Number of different made-up requests, so that a response cache does not answer all of them.
_REQUEST_POOL = 16
# Sequence ids may have to fit into a signed 32-bit integer, with room for ids after the first.
_MOST_FIRST_ID = 1 << 30
# Default mean length of a made-up sequence, in requests.
_SEQUENCE_LENGTH = 20
_OF_SEQUENCES = {"sequence_length", "sequence_length_variation", "sequences"}
_OF_STRINGS = {"string_length", "string_data"}


@contextmanager
def prepared(
    effective: model_config_pb2.ModelConfig,
    options: LoadOptions,
    endpoint: Endpoint,
    *,
    version: str = "",
    request_timeout_s: float,
) -> Iterator[Plan]:
    """Make requests for a model; the context holds their shared memory.

    Args:
        effective: The model's effective config.
        options: The user's options for requests.
        endpoint: The server's endpoint.
        version: The model's version; empty: the server's choice.
        request_timeout_s: Deadline of each request, in seconds.

    Raises:
        InputError: requests cannot be made for the model.
        JobError: an option does not fit the model, the protocol or the server, or has no effect.
    """
    stateful = effective.HasField("sequence_batching")
    request_options = RequestOptions(
        version=version,
        parameters=options.request_parameter,
        priority=options.priority,
        timeout_us=round((options.queue_timeout or 0) * 1e6),
        batch_size=options.batch_size,
        sequences=_sequences(effective.sequence_batching, options) if stateful else None,
        decoupled=effective.model_transaction_policy.decoupled,
    )
    interface = ModelInterface.of(effective)
    options = options.model_copy(update={"shape": own_shapes(interface, options.shape)})
    _check_use(effective, interface, options)
    over_grpc = endpoint.protocol == "grpc" and options.shared_memory == "none"
    streams = _streams(interface, options, partial(check_size, interface.name) if over_grpc else lambda _size: None)
    with _workload(interface, streams, request_options, options, endpoint) as workload:
        yield Plan(
            driver=_driver(workload, options, endpoint),
            endpoint=endpoint,
            workload=workload,
            request_timeout_s=request_timeout_s,
            connections=options.connections,
            compression=options.compression,
        )


def request_shapes(effective: model_config_pb2.ModelConfig, options: LoadOptions) -> tuple[WarmUpShape, ...]:
    """The distinct shapes of the requests that `prepared` makes, in their order.

    Raises:
        InputError: requests cannot be made for the model.
    """
    interface = ModelInterface.of(effective)
    options = options.model_copy(update={"shape": own_shapes(interface, options.shape)})
    steps = (step for stream in _streams(interface, options, lambda _size: None) for step in stream)
    return tuple(dict.fromkeys(tuple(_warm_up_input(interface, each) for each in step.inputs) for step in steps))


def _warm_up_input(interface: ModelInterface, tensor: InputTensor) -> WarmUpInput:
    name = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    dims = tensor.shape[1:] if interface.batched else tensor.shape
    return WarmUpInput(name=tensor.name, data_type=f"TYPE_{name}", dims=dims)


def _check_use(effective: model_config_pb2.ModelConfig, interface: ModelInterface, options: LoadOptions) -> None:
    """Raise an error if an option would have no effect."""

    def refuse(names: set[str], why: str) -> None:
        if given := sorted(names & options.model_fields_set):
            raise JobError(f"{as_option(given[0])} has no effect: {why}")

    if not effective.HasField("sequence_batching"):
        refuse(_OF_SEQUENCES, f"model {effective.name!r} does not batch sequences")
    elif effective.sequence_batching.iterative_sequence:
        refuse(_OF_SEQUENCES, f"each request to model {effective.name!r} is a whole sequence (iterative_sequence)")
    if options.input_data not in MADE_UP:
        refuse(_OF_STRINGS, "--input-data gives the values")
    if all(tensor.datatype != "BYTES" for tensor in interface.inputs):
        refuse(_OF_STRINGS, f"model {effective.name!r} takes no strings")
    if not effective.dynamic_batching.priority_levels:
        refuse({"priority"}, f"model {effective.name!r} has no priority levels")
    if options.queue_timeout and not _can_time_out(effective, options.queue_timeout):
        policy = "allow_timeout_override, and a longer default_timeout_microseconds"
        refuse({"queue_timeout"}, f"model {effective.name!r} has no queue policy with {policy}")


def _can_time_out(effective: model_config_pb2.ModelConfig, timeout_s: float) -> bool:
    """Whether a queue policy applies a request's time-out: it allows overrides, and its time-out is longer."""
    batching = effective.dynamic_batching
    return any(
        policy.allow_timeout_override and policy.default_timeout_microseconds > timeout_s * 1e6
        for policy in (batching.default_queue_policy, *batching.priority_queue_policy.values())
    )


def _sequences(batching: model_config_pb2.ModelSequenceBatching, options: LoadOptions) -> Sequences:
    length = options.sequence_length
    if length is None and options.input_data in MADE_UP:
        length = _SEQUENCE_LENGTH
    return Sequences(
        length,
        options.sequence_length_variation,
        options.sequences,
        first_id=_draw_first_id(),
        text_ids=_wants_text_ids(batching),
        iterative=batching.iterative_sequence,
    )


def apart(plan: Plan) -> Plan:
    """A copy of the plan for another connection, with other sequence ids."""
    workload = plan.workload
    if workload.sequences is None:
        return plan
    return replace(plan, workload=replace(workload, sequences=replace(workload.sequences, first_id=_draw_first_id())))


def _draw_first_id() -> int:
    """A random first sequence id, so that load generators do not share sequences."""
    return 1 + secrets.randbelow(_MOST_FIRST_ID)


def _wants_text_ids(batching: model_config_pb2.ModelSequenceBatching) -> bool:
    """Whether the model's control input takes sequence ids as strings; else ids are numbers."""
    kind = model_config_pb2.ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID
    controls = (control for control_input in batching.control_input for control in control_input.control)
    return any(control.kind == kind and control.data_type == model_config_pb2.TYPE_STRING for control in controls)


def _streams(interface: ModelInterface, options: LoadOptions, check: Callable[[int], None]) -> Sequence[Stream]:
    if options.input_data not in MADE_UP:
        path = Path(options.input_data)
        return read_input_data(path, interface, shapes=options.shape, batch_size=options.batch_size)
    return (
        make_inputs(
            interface,
            shapes=options.shape,
            pool=_REQUEST_POOL,
            seed=options.seed,
            batch_size=options.batch_size,
            zero=options.input_data == "zero",
            string_length=options.string_length,
            string_data=options.string_data,
            check_size=check,
        ),
    )


@contextmanager
def _workload(
    interface: ModelInterface,
    streams: Sequence[Stream],
    request_options: RequestOptions,
    options: LoadOptions,
    endpoint: Endpoint,
) -> Iterator[Workload]:
    if options.shared_memory == "none":
        yield build_workload(interface, streams, request_options, endpoint.protocol)
        return
    with (
        closing(open_registry(endpoint)) as registry,
        shared_workload(
            interface,
            streams,
            request_options,
            endpoint.protocol,
            registry,
            kind=options.shared_memory,
            output_bytes=options.output_shared_memory_size,
        ) as workload,
    ):
        yield workload


def _driver(workload: Workload, options: LoadOptions, endpoint: Endpoint) -> DriverName:
    """The driver for a workload: our own framing wherever it suffices."""
    if endpoint.protocol == "http":
        if options.compression:
            raise JobError("--compression is for gRPC; leave it out for an HTTP endpoint")
        return "http"
    return "grpcio" if workload.decoupled or workload.sequences or options.compression else "wire"
