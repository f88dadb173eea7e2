"""A client for Triton's metadata and model control, with a deadline on every call."""

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
    """A connection to a server, over gRPC or HTTP. An empty version means all versions, or the server's choice."""

    def server_metadata(self) -> service_pb2.ServerMetadataResponse:
        """Call `GET v2`."""

    def repository_index(self) -> service_pb2.RepositoryIndexResponse:
        """Call `POST v2/repository/index`."""

    def model_ready(self, name: str, version: str) -> service_pb2.ModelReadyResponse:
        """Call `GET v2/models/NAME[/versions/VERSION]/ready`."""

    def model_config(self, name: str, version: str) -> service_pb2.ModelConfigResponse:
        """Call `GET v2/models/NAME[/versions/VERSION]/config`."""

    def statistics(self, name: str, version: str) -> service_pb2.ModelStatisticsResponse:
        """Call `GET v2/models/NAME[/versions/VERSION]/stats`."""

    def load_model(self, name: str, config: str | None) -> None:
        """Call `POST v2/repository/models/NAME/load`."""

    def unload_model(self, name: str) -> None:
        """Call `POST v2/repository/models/NAME/unload`."""

    def close(self) -> None:
        """Close the connection; may be repeated."""


@dataclass(frozen=True)
class ServerInfo:
    """A server's metadata.

    Attributes:
        name: Its `--id`; `triton` by default.
        version: Its version, such as `2.51.0`.
        extensions: The extensions of the KServe protocol that it supports.
    """

    name: str
    version: str
    extensions: tuple[str, ...]


class TritonClient:
    """A connection to one server. Leaving the context closes it.

    Args:
        endpoint: A gRPC or HTTP endpoint.
        timeout_s: Deadline of each call, in seconds.

    Every call raises `ServerHungError` if no answer comes in time, and `ServerDiedError` if there is no server. If the
    server answers with an error, it raises `ServerError` with the server's own message. `ServerError` is also raised if
    TLS fails, or a server other than Triton answers.

    Raises:
        JobError: a TLS file of the endpoint cannot be used.
    """

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 5.0) -> None:
        connect = HttpConnection if endpoint.protocol == "http" else GrpcConnection
        self._connection: ServerConnection = connect(endpoint, timeout_s)

    def server(self) -> ServerInfo:
        """The server's name, version and extensions."""
        metadata = self._connection.server_metadata()
        return ServerInfo(metadata.name, metadata.version, tuple(metadata.extensions))

    def models(self) -> Mapping[str, str]:
        """The state of each model in the repository: `READY` if a version is ready, empty if none was ever loaded."""
        states: dict[str, str] = {}
        for model in self._connection.repository_index().models:
            if states.get(model.name) != _READY:
                states[model.name] = model.state
        return states

    def loaded(self) -> list[str]:
        """The models with a ready version, sorted."""
        return sorted(name for name, state in self.models().items() if state == _READY)

    def is_model_ready(self, name: str, version: str = "") -> bool:
        """Whether the model is ready for inference."""
        ready: bool = self._connection.model_ready(name, version).ready
        return ready

    def model_config(self, name: str, version: str = "") -> model_config_pb2.ModelConfig:
        """The effective config: `config.pbtxt` as completed by the server and the backend."""
        return self._connection.model_config(name, version).config

    def statistics(self, name: str, version: str = "") -> service_pb2.ModelStatistics:
        """The statistics of a model version since it was loaded; of the latest version by default."""
        statistics = self._connection.statistics(name, version).model_stats
        if not statistics:
            raise ServerError(f"the server has no statistics for model {name!r}", cause=Cause.REQUESTS_FAILED)
        return max(statistics, key=lambda entry: int(entry.version) if entry.version.isdecimal() else -1)

    def load_model(self, name: str, config: str | None = None) -> None:
        """Load a model, or reload it; returns when it is ready.

        Args:
            name: The name of a model in the server's repository.
            config: A config override, as JSON; None: the model's own config.
        """
        self._connection.load_model(name, config)

    def unload_model(self, name: str) -> None:
        """Start unloading a model; returns before it is done. A model that is not loaded, or unknown, is no error."""
        self._connection.unload_model(name)

    def close(self) -> None:
        """Close the connection; may be repeated."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
