"""Calls to a Triton over gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tuner.core.errors import Cause, ServerError
from tuner.options.endpoint import Endpoint
from tuner.servers.diagnosis import explain_failure, hung
from tuner.servers.grpc_channel import open_channel

# Triton itself returns UNAVAILABLE for a model that is not ready; only these texts of gRPC mean no connection.
_NOBODY_THERE = (
    "failed to connect",
    "errors resolving",
    "connection re",
    "connection closed",
    "socket closed",
    "goaway",
    "broken pipe",
)


class GrpcConnection:
    """A `ServerConnection` over gRPC."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._channel = open_channel(endpoint)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def server_metadata(self) -> service_pb2.ServerMetadataResponse:
        """See `ServerConnection`."""
        return self._ask(self._stub.ServerMetadata, service_pb2.ServerMetadataRequest())

    def repository_index(self) -> service_pb2.RepositoryIndexResponse:
        """See `ServerConnection`."""
        return self._ask(self._stub.RepositoryIndex, service_pb2.RepositoryIndexRequest())

    def model_ready(self, name: str, version: str) -> service_pb2.ModelReadyResponse:
        """See `ServerConnection`."""
        return self._ask(self._stub.ModelReady, service_pb2.ModelReadyRequest(name=name, version=version))

    def model_config(self, name: str, version: str) -> service_pb2.ModelConfigResponse:
        """See `ServerConnection`."""
        return self._ask(self._stub.ModelConfig, service_pb2.ModelConfigRequest(name=name, version=version))

    def statistics(self, name: str, version: str) -> service_pb2.ModelStatisticsResponse:
        """See `ServerConnection`."""
        return self._ask(self._stub.ModelStatistics, service_pb2.ModelStatisticsRequest(name=name, version=version))

    def load_model(self, name: str, config: str | None) -> None:
        """See `ServerConnection`."""
        request = service_pb2.RepositoryModelLoadRequest(model_name=name)
        if config is not None:
            request.parameters["config"].string_param = config
        self._ask(self._stub.RepositoryModelLoad, request)

    def unload_model(self, name: str) -> None:
        """See `ServerConnection`."""
        self._ask(self._stub.RepositoryModelUnload, service_pb2.RepositoryModelUnloadRequest(model_name=name))

    def close(self) -> None:
        """See `ServerConnection`."""
        self._channel.close()

    def _ask(self, call: Callable[..., Any], request: Any) -> Any:
        try:
            return call(request, timeout=self._timeout_s, metadata=self._endpoint.headers)
        except grpc.RpcError as error:
            raise self._explain(error) from error

    def _explain(self, error: Any) -> ServerError:
        code, text = error.code(), " ".join((error.details() or "").split())
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return hung(self._endpoint, self._timeout_s)
        if code is grpc.StatusCode.UNAVAILABLE and any(sign in text.lower() for sign in _NOBODY_THERE):
            return explain_failure(self._endpoint)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            text = f"{self._endpoint.address} does not implement Triton's gRPC service: {text!r}"
        if "metadata size exceeds" in text:
            text = "the server failed, and its message is too long for gRPC; see the server's log"
        return ServerError(text or code.name, cause=Cause.REQUESTS_FAILED)
