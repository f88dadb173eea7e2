"""The methods of `inference.GRPCInferenceService`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from tuner.testing.fake.api import NO_CUDA_MEMORY, Api
from tuner.testing.fake.http2 import Call
from tuner.testing.fake.messages import Code, InferRequest, InferResponse, RefusedError

_EMPTY_FINAL = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"
# The API of each method, for `--grpc-restricted-protocol`.
_GROUPS = {
    "ServerLive": "health",
    "ServerReady": "health",
    "ModelReady": "health",
    "ServerMetadata": "metadata",
    "ModelMetadata": "metadata",
    "ModelInfer": "inference",
    "ModelStreamInfer": "inference",
    "ModelConfig": "model-config",
    "ModelStatistics": "statistics",
    "RepositoryIndex": "model-repository",
    "RepositoryModelLoad": "model-repository",
    "RepositoryModelUnload": "model-repository",
    "SystemSharedMemoryStatus": "shared-memory",
    "SystemSharedMemoryRegister": "shared-memory",
    "SystemSharedMemoryUnregister": "shared-memory",
    "CudaSharedMemoryStatus": "shared-memory",
    "CudaSharedMemoryRegister": "shared-memory",
    "CudaSharedMemoryUnregister": "shared-memory",
}


class GrpcService:
    """Serves the methods; an `http2.GrpcHandler`.

    Args:
        api: The server's API.
        restricted: By group of methods, the header and the value that it requires.
        compresses: Whether responses are compressed for clients that accept it.
    """

    def __init__(self, api: Api, restricted: Mapping[str, tuple[str, str]], *, compresses: bool) -> None:
        self._api = api
        self._restricted = restricted
        self._compresses = compresses
        self._loads: set[asyncio.Task[None]] = set()
        self._unary: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
            "ServerLive": (pb.ServerLiveRequest, lambda _: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, lambda _: pb.ServerReadyResponse(ready=api.ready())),
            "ModelReady": (
                pb.ModelReadyRequest,
                lambda asked: pb.ModelReadyResponse(ready=api.model_ready(asked.name, asked.version)),
            ),
            "ServerMetadata": (pb.ServerMetadataRequest, lambda _: api.metadata()),
            "ModelMetadata": (pb.ModelMetadataRequest, lambda asked: api.model_metadata(asked.name, asked.version)),
            "ModelConfig": (pb.ModelConfigRequest, lambda asked: api.config(asked.name, asked.version)),
            "ModelStatistics": (pb.ModelStatisticsRequest, lambda asked: api.statistics(asked.name, asked.version)),
            "RepositoryIndex": (pb.RepositoryIndexRequest, lambda asked: api.index(ready=asked.ready)),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
            "SystemSharedMemoryStatus": (
                pb.SystemSharedMemoryStatusRequest,
                lambda asked: api.memory_status(asked.name),
            ),
            "SystemSharedMemoryRegister": (pb.SystemSharedMemoryRegisterRequest, self._register),
            "SystemSharedMemoryUnregister": (pb.SystemSharedMemoryUnregisterRequest, self._unregister),
            "CudaSharedMemoryStatus": (
                pb.CudaSharedMemoryStatusRequest,
                lambda _: pb.CudaSharedMemoryStatusResponse(),
            ),
            "CudaSharedMemoryRegister": (pb.CudaSharedMemoryRegisterRequest, _refuse_cuda),
            "CudaSharedMemoryUnregister": (
                pb.CudaSharedMemoryUnregisterRequest,
                lambda _: pb.CudaSharedMemoryUnregisterResponse(),
            ),
        }

    def begin(self, call: Call) -> None:
        """See `http2.GrpcHandler`."""
        if restriction := self._restricted.get(_GROUPS.get(call.method, "")):
            name, value = restriction
            if call.headers.get(name) != value:
                text = f"This protocol is restricted, expecting header '{name}'"
                raise RefusedError(Code.UNAVAILABLE, text)
        if self._compresses:
            taken = call.headers.get("grpc-accept-encoding", "").replace(" ", "").split(",")
            call.encoding = next((encoding for encoding in ("gzip", "deflate") if encoding in taken), "")
        if call.method == "ModelInfer":
            call.on_message = lambda message: self._infer(call, message)
        elif call.method == "ModelStreamInfer":
            stream = _Stream(self._api, call)
            call.on_message, call.on_end, call.on_cancel = stream.take, stream.end, stream.cancel
        elif call.method == "RepositoryModelLoad":
            call.on_message = lambda message: self._load(call, message)
        elif call.method in self._unary:
            call.on_message = lambda message: self._answer(call, message)
        else:
            raise RefusedError(Code.UNIMPLEMENTED, "")

        take = call.on_message
        call.on_message = lambda message: _read(call, message, take)

    def _answer(self, call: Call, message: bytes) -> None:
        kind, answer = self._unary[call.method]
        try:
            response = answer(kind.FromString(message))
        except RefusedError as error:
            call.finish(error)
        else:
            call.answer(response.SerializeToString())

    def _infer(self, call: Call, message: bytes) -> None:
        asked = pb.ModelInferRequest.FromString(message)

        def answer(made: pb.ModelInferResponse, response: InferResponse) -> None:
            if response.error:
                call.finish(response.error)
            else:
                call.answer(made.SerializeToString())

        try:
            if self._api.is_decoupled(asked.model_name, asked.model_version):
                text = "ModelInfer RPC doesn't support models with decoupled transaction policy"
                call.finish(RefusedError(Code.UNIMPLEMENTED, text))
            else:
                call.on_cancel = self._api.infer(asked, answer).cancel
        except RefusedError as error:
            call.finish(error)

    def _load(self, call: Call, message: bytes) -> None:
        asked = pb.RepositoryModelLoadRequest.FromString(message)

        async def load() -> None:
            try:
                await self._api.load(asked.model_name, asked.parameters)
            except RefusedError as error:
                call.finish(error)
            else:
                call.answer(b"")

        task = asyncio.get_running_loop().create_task(load())
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    def _unload(self, asked: Any) -> Any:
        self._api.unload(asked.model_name, asked.parameters)
        return pb.RepositoryModelUnloadResponse()

    def _register(self, asked: Any) -> Any:
        self._api.register(asked.name, asked.key, asked.offset, asked.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def _unregister(self, asked: Any) -> Any:
        self._api.unregister(asked.name)
        return pb.SystemSharedMemoryUnregisterResponse()


def _read(call: Call, message: bytes, take: Callable[[bytes], None]) -> None:
    try:
        take(message)
    except DecodeError:
        call.finish(RefusedError(Code.INTERNAL, "Error in parsing the request"))


def _refuse_cuda(asked: Any) -> Any:
    raise RefusedError(Code.INVALID_ARGUMENT, NO_CUDA_MEMORY.format(asked.name))


class _Stream:
    """One `ModelStreamInfer` call."""

    def __init__(self, api: Api, call: Call) -> None:
        self._api = api
        self._call = call
        self._open: set[InferRequest] = set()
        self._ended = False
        self._under_way = 0

    def take(self, message: bytes) -> None:
        asked = pb.ModelInferRequest.FromString(message)
        wants_empty = _EMPTY_FINAL in asked.parameters and asked.parameters[_EMPTY_FINAL].bool_param
        mine: list[InferRequest] = []
        self._under_way += 1

        def answer(made: pb.ModelInferResponse, response: InferResponse) -> None:
            if not response.empty or wants_empty:
                made.parameters[_FINAL].bool_param = response.final
                error = response.error.text if response.error else ""
                self._call.send(
                    pb.ModelStreamInferResponse(error_message=error, infer_response=made).SerializeToString()
                )
            if response.final:
                self._under_way -= 1
                self._open.difference_update(mine)
                self._finish()

        try:
            mine.append(self._api.infer(asked, answer))
        except RefusedError as error:
            self._under_way -= 1
            refusal = pb.ModelStreamInferResponse(
                error_message=error.text, infer_response=pb.ModelInferResponse(id=asked.id)
            )
            self._call.send(refusal.SerializeToString())
            return
        if self._under_way:
            self._open.update(mine)

    def end(self) -> None:
        self._ended = True
        self._finish()

    def cancel(self) -> None:
        for request in list(self._open):
            request.cancel()

    def _finish(self) -> None:
        if self._ended and self._under_way == 0:
            self._call.finish()
