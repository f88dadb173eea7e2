"""The server's API as gRPC messages; HTTP translates them to JSON."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from tuner.testing.fake.configs import as_json, datatype, refuse
from tuner.testing.fake.messages import (
    BYTES,
    FORMATS,
    Code,
    InferRequest,
    InferResponse,
    RawTensor,
    RefusedError,
    joined,
)
from tuner.testing.fake.repository import Repository
from tuner.testing.fake.runtime import Runtime
from tuner.testing.fake.shared_memory import SharedMemory

EXTENSIONS = (
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
# Triton's errors for `contents` of another type than the tensor.
_TYPES = {
    "bool_contents": "BOOL",
    "int_contents": "INT32",
    "int64_contents": "INT64",
    "uint_contents": "UINT32",
    "uint64_contents": "UINT64",
    "fp32_contents": "FP32",
    "fp64_contents": "FP64",
    "bytes_contents": BYTES,
}
NO_CUDA_MEMORY = "failed to register CUDA shared memory region '{}': failed to open CUDA IPC handle: no GPU is there"
_NOT_ALLOWED = "explicit model load / unload is not allowed if polling is enabled"

Answer = Callable[[pb.ModelInferResponse, InferResponse], None]


class Api:
    """The server's API.

    Args:
        name: The server's name (`--id`).
        version: The Triton version to report.
        repository: The models.
        runtime: The clock and the control file.
        explicit: Whether models can be loaded and unloaded.
        strict: Whether it is ready only if all models are (`--strict-readiness`).
    """

    def __init__(
        self, name: str, version: str, repository: Repository, runtime: Runtime, *, explicit: bool, strict: bool = True
    ) -> None:
        self._name = name
        self._version = version
        self._repository = repository
        self._runtime = runtime
        self._explicit = explicit
        self._strict = strict
        self._memory = SharedMemory()

    def ready(self) -> bool:
        """Whether the server is ready."""
        states = [state for _, _, state, reason in self._repository.states() if state and reason != "unloaded"]
        return not self._strict or all(state == "READY" for state in states)

    def metadata(self) -> pb.ServerMetadataResponse:
        """Metadata of the server."""
        return pb.ServerMetadataResponse(name=self._name, version=self._version, extensions=EXTENSIONS)

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a model is ready."""
        return self._repository.ready(name, version)

    def model_metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """Metadata of a model.

        Raises:
            RefusedError: the model is not ready.
        """
        served = self._repository.served(name, version)
        config = served.config
        batch = (-1,) if config.max_batch_size > 0 else ()
        versions = sorted((model.version for model in self._repository.all_served(name)), reverse=False)
        tensors = [
            [
                pb.ModelMetadataResponse.TensorMetadata(
                    name=tensor.name, datatype=datatype(tensor.data_type), shape=(*batch, *tensor.dims)
                )
                for tensor in part
            ]
            for part in (config.input, config.output)
        ]
        return pb.ModelMetadataResponse(
            name=name,
            versions=[str(number) for number in versions],
            platform=config.platform or config.backend,
            inputs=tensors[0],
            outputs=tensors[1],
        )

    def config(self, name: str, version: str) -> pb.ModelConfigResponse:
        """The completed config of a model.

        Raises:
            RefusedError: the model is not ready.
        """
        return pb.ModelConfigResponse(config=self._repository.served(name, version).config)

    def statistics(self, name: str, version: str) -> pb.ModelStatisticsResponse:
        """Statistics of a model, or of all models.

        Raises:
            RefusedError: the model is not ready.
        """
        self._runtime.now()
        served = self._repository.all_served(name, version)
        return pb.ModelStatisticsResponse(
            model_stats=[model.statistics.proto(model.name, model.version) for model in served]
        )

    def index(self, *, ready: bool = False) -> pb.RepositoryIndexResponse:
        """The repository index: all models and their states."""
        models = [
            pb.RepositoryIndexResponse.ModelIndex(name=name, version=version, state=state, reason=reason)
            for name, version, state, reason in self._repository.states()
            if not ready or state == "READY"
        ]
        return pb.RepositoryIndexResponse(models=models)

    async def load(self, name: str, parameters: Any) -> None:
        """Load a model; `parameters` as in `RepositoryModelLoadRequest`.

        Raises:
            RefusedError: the model fails to load.
        """
        self._must_be_explicit()
        override = parameters["config"].string_param if "config" in parameters else None
        files = {
            key.removeprefix("file:"): value.bytes_param for key, value in parameters.items() if key.startswith("file:")
        }
        await self._repository.load(name, override, files)

    def unload(self, name: str, parameters: Any) -> None:
        """Begin to unload a model.

        Raises:
            RefusedError: the server is not in explicit model control mode.
        """
        self._must_be_explicit()
        key = "unload_dependents"
        self._repository.unload(name, dependents=key in parameters and parameters[key].bool_param)

    def _must_be_explicit(self) -> None:
        if not self._explicit:
            raise refuse(_NOT_ALLOWED, Code.UNAVAILABLE)

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Register a region of shared memory.

        Raises:
            RefusedError: the region cannot be registered.
        """
        self._memory.register(name, key, offset, byte_size)

    def unregister(self, name: str) -> None:
        """Unregister a region, or all regions."""
        self._memory.unregister(name)

    def memory_status(self, name: str) -> pb.SystemSharedMemoryStatusResponse:
        """The registered regions.

        Raises:
            RefusedError: there is no region of that name.
        """
        kind = pb.SystemSharedMemoryStatusResponse.RegionStatus
        regions = {
            region_name: kind(name=region_name, key=region.key, offset=region.offset, byte_size=region.byte_size)
            for region_name, region in self._memory.status(name).items()
        }
        return pb.SystemSharedMemoryStatusResponse(regions=regions)

    def is_decoupled(self, name: str, version: str) -> bool:
        """Whether a model is decoupled.

        Raises:
            RefusedError: the model is not ready.
        """
        return bool(self._repository.served(name, version).decoupled)

    def infer(self, message: pb.ModelInferRequest, answer: Answer) -> InferRequest:
        """Run an inference; `answer` takes each response with its request.

        Raises:
            RefusedError: the request or the model is invalid.
        """
        request = self._request(message)
        served = self._repository.served(message.model_name, message.model_version)
        places = _places(message.outputs)
        for region, offset, byte_size in places.values():
            self._memory.check(region, offset, byte_size)

        def take(response: InferResponse) -> None:
            if self._runtime.control.get("stall"):
                self._hold(lambda: take(response))
                return
            made = pb.ModelInferResponse(model_name=message.model_name, id=message.id)
            if not response.empty and response.error is None:
                made.model_version = str(served.version)
                try:
                    self._fill(made, response, places)
                except RefusedError as error:
                    response = InferResponse(error=error, final=response.final)
            if served.config.platform == "ensemble":
                made.parameters["sequence_id"].int64_param = 0
                made.parameters["sequence_start"].bool_param = False
                made.parameters["sequence_end"].bool_param = False
            answer(made, response)

        request.answer = take
        served.infer(request)
        return request

    def _hold(self, go_on: Callable[[], None]) -> None:
        """Try again in 10 ms, while the control file has `stall`."""
        asyncio.get_running_loop().call_later(0.01, go_on)

    def _request(self, message: pb.ModelInferRequest) -> InferRequest:
        inputs, raw = {}, list(message.raw_input_contents)
        for entry in message.inputs:
            data = self._content(message.model_name, entry, raw)
            inputs[entry.name] = RawTensor(entry.datatype, tuple(entry.shape), data)
        parameters = message.parameters
        sequence: int | str = 0
        if "sequence_id" in parameters:
            named = parameters["sequence_id"]
            sequence = named.string_param or named.int64_param or named.uint64_param
        return InferRequest(
            message.model_name,
            inputs,
            lambda _: None,
            version=message.model_version,
            id=message.id,
            wanted=[entry.name for entry in message.outputs],
            sequence=sequence,
            start="sequence_start" in parameters and parameters["sequence_start"].bool_param,
            end="sequence_end" in parameters and parameters["sequence_end"].bool_param,
        )

    def _content(self, model: str, entry: Any, raw: list[bytes]) -> bytes:
        if "shared_memory_region" in entry.parameters:
            region, offset, byte_size = _place(entry.parameters)
            return self._memory.read(region, offset, byte_size)
        if entry.HasField("contents"):
            return _from_contents(model, entry)
        return raw.pop(0) if raw else b""

    def _fill(
        self, made: pb.ModelInferResponse, response: InferResponse, places: dict[str, tuple[str, int, int]]
    ) -> None:
        for name, tensor in response.outputs.items():
            output = made.outputs.add()
            output.name, output.datatype = name, tensor.datatype
            output.shape.extend(tensor.shape)
            if name not in places:
                made.raw_output_contents.append(tensor.data)
                continue
            region, offset, byte_size = places[name]
            if byte_size < len(tensor.data):
                text = (
                    f"shared memory size specified with the request for output '{name}' ({byte_size} bytes) should be "
                    f"at least {len(tensor.data)} bytes to hold the results"
                )
                raise refuse(text, Code.INTERNAL)
            self._memory.write(region, offset, tensor.data)
            output.parameters["shared_memory_region"].string_param = region
            output.parameters["shared_memory_byte_size"].int64_param = len(tensor.data)
            if offset:
                output.parameters["shared_memory_offset"].int64_param = offset
            made.raw_output_contents.append(b"")


def config_json(response: pb.ModelConfigResponse) -> dict[str, Any]:
    """A config as JSON, as the HTTP API returns it."""
    return as_json(response.config)


def _places(outputs: Any) -> dict[str, tuple[str, int, int]]:
    return {entry.name: _place(entry.parameters) for entry in outputs if "shared_memory_region" in entry.parameters}


def _place(parameters: Any) -> tuple[str, int, int]:
    offset = parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
    return parameters["shared_memory_region"].string_param, offset, parameters["shared_memory_byte_size"].int64_param


def _from_contents(model: str, entry: Any) -> bytes:
    """The raw bytes of a tensor whose elements were sent in `contents`."""
    wanted = _CONTENTS.get(entry.datatype, "")
    for descriptor, values in entry.contents.ListFields():
        if descriptor.name != wanted:
            raise refuse(
                f"unexpected explicit tensor data for input tensor '{entry.name}' for model '{model}' of type "
                f"'{_TYPES[descriptor.name]}', expected datatype '{entry.datatype}'"
            )
        if entry.datatype == BYTES:
            return joined(list(values))
        return struct.pack(f"<{len(values)}{FORMATS[entry.datatype]}", *values)
    return b""
