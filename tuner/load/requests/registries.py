"""Registers shared memory regions at a server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import grpc
import urllib3
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tuner.core.errors import JobError, TritontuneError
from tuner.options.endpoint import Endpoint
from tuner.servers.diagnosis import explain_failure, hung
from tuner.servers.grpc_channel import open_channel
from tuner.servers.http_answers import own_words

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class SystemRegion:
    """POSIX shared memory.

    Attributes:
        name: Its name on the server.
        byte_size: Its size in bytes.
        key: Its name for `shm_open`.
    """

    name: str
    byte_size: int
    key: str


@dataclass(frozen=True)
class CudaRegion:
    """Memory of a GPU.

    Attributes:
        name: Its name on the server.
        byte_size: Its size in bytes.
        handle: Its handle for `cudaIpcOpenMemHandle`.
        device: The index of the GPU.
    """

    name: str
    byte_size: int
    handle: bytes
    device: int


Region = SystemRegion | CudaRegion


class Registry(Protocol):
    """The shared memory registry of a server.

    `register` and `unregister` raise `ServerError` if the server does not answer.
    """

    def register(self, region: Region) -> None:
        """Let the server open a region.

        Raises:
            JobError: the server refuses; one line says why.
        """

    def unregister(self, region: Region) -> None:
        """Let the server close a region; an unknown region is no error.

        Raises:
            JobError: the server refuses.
        """

    def close(self) -> None:
        """Close the connection; may be repeated."""


def open_registry(endpoint: Endpoint) -> Registry:
    """The registry of a server, over the protocol of its endpoint; it connects with the first call."""
    return HttpRegistry(endpoint) if endpoint.protocol == "http" else GrpcRegistry(endpoint)


class GrpcRegistry:
    """A `Registry` over gRPC."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._channel = open_channel(endpoint)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def register(self, region: Region) -> None:
        """See `Registry`."""
        if isinstance(region, SystemRegion):
            system = service_pb2.SystemSharedMemoryRegisterRequest(
                name=region.name, key=region.key, byte_size=region.byte_size
            )
            self._ask(region, self._stub.SystemSharedMemoryRegister, system)
        else:
            cuda = service_pb2.CudaSharedMemoryRegisterRequest(
                name=region.name, raw_handle=region.handle, device_id=region.device, byte_size=region.byte_size
            )
            self._ask(region, self._stub.CudaSharedMemoryRegister, cuda)

    def unregister(self, region: Region) -> None:
        """See `Registry`."""
        if isinstance(region, SystemRegion):
            system = service_pb2.SystemSharedMemoryUnregisterRequest(name=region.name)
            self._ask(region, self._stub.SystemSharedMemoryUnregister, system)
        else:
            cuda = service_pb2.CudaSharedMemoryUnregisterRequest(name=region.name)
            self._ask(region, self._stub.CudaSharedMemoryUnregister, cuda)

    def close(self) -> None:
        """See `Registry`."""
        self._channel.close()

    def _ask(self, region: Region, call: Callable[..., Any], request: Message) -> None:
        try:
            call(request, timeout=_TIMEOUT_S, metadata=self._endpoint.headers)
        except grpc.RpcError as error:
            raise self._explain(region, error) from None

    def _explain(self, region: Region, error: Any) -> TritontuneError:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return hung(self._endpoint, _TIMEOUT_S)
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return explain_failure(self._endpoint)
        return _refusal(self._endpoint, region, error.details() or error.code().name)


class HttpRegistry:
    """A `Registry` over HTTP. Proxies of the environment are ignored."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        tls = endpoint.tls
        secure = {"ssl_context": tls.context("http/1.1"), "server_hostname": tls.server_name} if tls else {}
        self._pool = urllib3.connection_from_url(endpoint.url, **secure)

    def register(self, region: Region) -> None:
        """See `Registry`."""
        if isinstance(region, SystemRegion):
            description: dict[str, Any] = {"key": region.key, "offset": 0}
        else:
            handle = base64.b64encode(region.handle).decode()
            description = {"raw_handle": {"b64": handle}, "device_id": region.device}
        self._ask(region, "register", {**description, "byte_size": region.byte_size})

    def unregister(self, region: Region) -> None:
        """See `Registry`."""
        self._ask(region, "unregister", {})

    def close(self) -> None:
        """See `Registry`."""
        self._pool.close()

    def _ask(self, region: Region, what: str, body: dict[str, Any]) -> None:
        path = f"{self._endpoint.path}/v2/{_kind(region)}sharedmemory/region/{region.name}/{what}"
        try:
            reply = self._pool.request(
                "POST",
                path,
                body=json.dumps(body).encode(),
                headers=dict(self._endpoint.headers),
                timeout=urllib3.Timeout(total=_TIMEOUT_S),
                retries=False,
            )
        except urllib3.exceptions.ReadTimeoutError:
            raise hung(self._endpoint, _TIMEOUT_S) from None
        except urllib3.exceptions.HTTPError:
            raise explain_failure(self._endpoint) from None
        if reply.status != HTTPStatus.OK:
            raise _refusal(self._endpoint, region, own_words(reply.data) or f"{reply.status} {reply.reason}")


def _kind(region: Region) -> str:
    return "system" if isinstance(region, SystemRegion) else "cuda"


def _refusal(endpoint: Endpoint, region: Region, words: str) -> JobError:
    needed = (
        "the server must run on this machine and share its /dev/shm (in a container: --ipc=host)"
        if isinstance(region, SystemRegion)
        else f"the server must run on this machine and see GPU {region.device}"
    )
    said = " ".join(words.split()).rstrip(".")
    return JobError(f"--shared-memory {_kind(region)}: {endpoint.address} refused it ({said}); {needed}")
