"""Asks a Triton about itself, with a deadline on every question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from tritonclient.grpc import model_config_pb2, service_pb2
from typing_extensions import Self

from tuner.core.errors import Cause, ServerError
from tuner.options.endpoint import Endpoint
from tuner.servers.grpc_connection import GrpcConnection
from tuner.servers.http_connection import HttpConnection

_READY = "READY"


class ServerConnection(Protocol):
    """How questions get to a server, and answers back. An empty version stands for all, or for the server's choice."""

    def server_metadata(self) -> service_pb2.ServerMetadataResponse:
        """`GET v2`."""

    def repository_index(self) -> service_pb2.RepositoryIndexResponse:
        """`POST v2/repository/index`."""

    def model_ready(self, name: str, version: str) -> service_pb2.ModelReadyResponse:
        """`GET v2/models/NAME[/versions/VERSION]/ready`."""

    def model_config(self, name: str, version: str) -> service_pb2.ModelConfigResponse:
        """`GET v2/models/NAME[/versions/VERSION]/config`."""

    def statistics(self, name: str, version: str) -> service_pb2.ModelStatisticsResponse:
        """`GET v2/models/NAME[/versions/VERSION]/stats`."""

    def load_model(self, name: str, config: str | None) -> None:
        """`POST v2/repository/models/NAME/load`."""

    def unload_model(self, name: str) -> None:
        """`POST v2/repository/models/NAME/unload`."""

    def close(self) -> None:
        """Close it; again is harmless."""


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
        endpoint: Of gRPC or HTTP.
        timeout_s: Deadline of each call.

    Every call raises `ServerHungError` when there is no answer in time, `ServerDiedError` when nobody is there, and
    `ServerError` when the server answers with an error; the message then is the server's own. That one is also raised
    where one side does not trust the other, or where something else than a Triton answers; it says which.

    Raises:
        JobError: a file of the endpoint's TLS is not what it should be.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 5.0) -> None:
        connect = HttpConnection if endpoint.protocol == "http" else GrpcConnection
        self._connection: ServerConnection = connect(endpoint, timeout_s)

    def server(self) -> ServerInfo:
        """The server's name, version and extensions."""
        metadata = self._connection.server_metadata()
        return ServerInfo(metadata.name, metadata.version, tuple(metadata.extensions))

    def models(self) -> Mapping[str, str]:
        """The state of each model of the repository: `READY` when a version is, empty when none was ever loaded."""
        states: dict[str, str] = {}
        for model in self._connection.repository_index().models:
            if states.get(model.name) != _READY:
                states[model.name] = model.state
        return states

    def loaded(self) -> list[str]:
        """The models of which a version is ready, sorted."""
        return sorted(name for name, state in self.models().items() if state == _READY)

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """Whether the model can be asked for inferences now."""
        ready: bool = self._connection.model_ready(name, version).ready
        return ready

    def model_config(self, name: str, version: str = "") -> model_config_pb2.ModelConfig:
        """The effective config: what the server and the backend made of `config.pbtxt`."""
        return self._connection.model_config(name, version).config

    def statistics(self, name: str, version: str = "") -> service_pb2.ModelStatistics:
        """What the server counted for a version of the model since it was loaded; without one, for the latest."""
        statistics = self._connection.statistics(name, version).model_stats
        if not statistics:
            raise ServerError(f"the server has no statistics for model {name!r}", cause=Cause.REQUESTS_FAILED)
        return max(statistics, key=lambda each: int(each.version) if each.version.isdecimal() else -1)

    def load_model(self, name: str, config: str | None = None) -> None:
        """Have a model loaded, anew if it is already; returns when it is ready.

        Args:
            name: Of a model in the server's repository.
            config: A config in the place of its own, as JSON; None: its own.
        """
        self._connection.load_model(name, config)

    def unload_model(self, name: str) -> None:
        """Have a model unloaded; returns before it is. One that is not loaded, or not there, is no error."""
        self._connection.unload_model(name)

    def close(self) -> None:
        """Close the connection; again is harmless."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
