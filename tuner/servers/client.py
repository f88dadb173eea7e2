"""Asks a Triton about itself over gRPC, with a deadline on every question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException
from typing_extensions import Self

from tuner.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.servers.channel import CHANNEL_OPTIONS

# Triton itself answers UNAVAILABLE too, for a model that is not ready; only gRPC's own texts mean that nobody is there.
_NOBODY_THERE = ("failed to connect", "connection re", "connection closed", "socket closed", "goaway", "broken pipe")


@dataclass(frozen=True)
class ServerInfo:
    """What a server says of itself.

    Attributes:
        name: Its `--id`; `triton` when none was given.
        version: Such as `2.51.0`.
        extensions: Of the KServe protocol that it speaks.
    """

    name: str
    version: str
    extensions: tuple[str, ...]


class TritonClient:
    """A connection to one server. Leaving the context closes it.

    Args:
        address: `host:port` of the gRPC endpoint.
        timeout_s: Deadline of each call.

    Every call raises `ServerHungError` when there is no answer in time, `ServerDiedError` when nobody is there, and
    `ServerError` when the server answers with an error; the message then is the server's own.
    """

    def __init__(self, address: str, *, timeout_s: float = 5.0) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._client = triton.InferenceServerClient(address, channel_args=list(CHANNEL_OPTIONS))

    def server(self) -> ServerInfo:
        """The server's name, version and extensions."""
        metadata: service_pb2.ServerMetadataResponse = self._ask(self._client.get_server_metadata)
        return ServerInfo(metadata.name, metadata.version, tuple(metadata.extensions))

    def models(self) -> Mapping[str, str]:
        """The state of each model of the repository, such as `READY`; empty for one that was never loaded."""
        index: service_pb2.RepositoryIndexResponse = self._ask(self._client.get_model_repository_index)
        return {model.name: model.state for model in index.models}

    def is_model_ready(self, name: str) -> bool:
        """Whether the model can be asked for inferences now."""
        return bool(self._ask(self._client.is_model_ready, name))

    def model_config(self, name: str) -> model_config_pb2.ModelConfig:
        """The effective config: what the server and the backend made of `config.pbtxt`."""
        response: service_pb2.ModelConfigResponse = self._ask(self._client.get_model_config, name)
        return response.config

    def statistics(self, name: str) -> service_pb2.ModelStatistics:
        """What the server counted for the model since it was loaded: its latest version, when several are loaded."""
        response: service_pb2.ModelStatisticsResponse = self._ask(self._client.get_inference_statistics, name)
        return max(response.model_stats, key=lambda statistics: int(statistics.version))

    def close(self) -> None:
        """Close the connection; again is harmless."""
        self._client.close()

    def _ask(self, question: Any, *arguments: str) -> Any:
        try:
            return question(*arguments, client_timeout=self._timeout_s)
        except InferenceServerException as error:
            raise self._explain(error) from error

    def _explain(self, error: InferenceServerException) -> ServerError:
        status, text = str(error.status()), " ".join(str(error.message()).split())
        if status.endswith("DEADLINE_EXCEEDED"):
            return ServerHungError(f"{self._address} gave no answer in {self._timeout_s:g} s", cause=Cause.HUNG)
        if status.endswith("UNAVAILABLE") and any(sign in text.lower() for sign in _NOBODY_THERE):
            return ServerDiedError(f"no Triton answers at {self._address}", cause=Cause.CRASHED)
        return ServerError(text, cause=Cause.REQUESTS_FAILED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
