"""A Triton that runs in a container of this machine."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from tuner.errors import Cause, ServerError, ServerHungError
from tuner.servers.docker_address import address_of
from tuner.servers.docker_container import GRPC_PORT, remove_container
from tuner.servers.docker_engine import ENGINE_ERRORS, engine_trouble
from tuner.servers.docker_usage import container_usage
from tuner.servers.docker_watch import Watch
from tuner.servers.mark import Mark
from tuner.servers.server import End, TritonServer
from tuner.servers.triton_log import last_words, read_log
from tuner.servers.usage import ServerUsage

_LAST_LINES_S = 5.0


class DockerServer(TritonServer):
    """A server that runs in a container, which is named by its mark.

    Args:
        client: A connection to the engine for this server alone; closed with it.
        container: Just started.
        mark: Whose it is.
        model: That it is to load.
        log: The file to which its output is copied.
        command: The `docker run` that does the same.
        port: Of its gRPC endpoint, as it sees it; any but `GRPC_PORT` is one of this machine's own.
    """

    def __init__(
        self,
        client: DockerClient,
        container: Container,
        *,
        mark: Mark,
        model: str,
        log: Path,
        command: str,
        port: int = GRPC_PORT,
    ) -> None:
        container.reload()
        address = address_of(container.attrs, port) if port == GRPC_PORT else f"127.0.0.1:{port}"
        super().__init__(mark=mark, model=model, log=log, grpc_address=address, command=command)
        self._client = client
        self._container = container
        self._pid: int = container.attrs["State"]["Pid"]
        self._watch = Watch(container, log)

    @property
    def pid(self) -> int:
        """The process of the server itself, as this machine numbers it; 0 when it had ended at once."""
        return self._pid

    def usage(self) -> ServerUsage | None:
        """What it takes; from the engine where its processes cannot be seen, as from within another container."""
        return super().usage() or (None if self._stopped else container_usage(self._container))

    def _cause_of(self, error: ServerError) -> ServerError | None:
        """Also that somebody keeps it from running, which is no fault of the candidate's."""
        if self._is_paused():
            words = last_words(read_log(self.log))
            return ServerHungError(f"the container is paused: {error}", cause=Cause.HUNG, last_words=words)
        return super()._cause_of(error)

    def _is_paused(self) -> bool:
        try:
            self._container.reload()
        except ENGINE_ERRORS:
            return False
        return bool(self._container.attrs["State"]["Paused"])

    def _end(self) -> End | None:
        return self._watch.end

    def _terminate(self) -> None:
        with engine_trouble(), suppress(APIError):  # it is not running any more
            self._container.kill("SIGTERM")

    def _remove(self) -> None:
        with closing(self._client):
            remove_container(self._client, str(self.mark))
            self._watch.join(_LAST_LINES_S)
