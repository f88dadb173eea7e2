"""A Triton that runs in a container."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from tuner.core.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.core.mark import Mark
from tuner.options.endpoint import Header
from tuner.servers.docker.address import address_of
from tuner.servers.docker.container import GRPC_PORT, remove_container
from tuner.servers.docker.engine import ENGINE_ERRORS, engine_trouble
from tuner.servers.docker.engine_location import EngineLocation
from tuner.servers.docker.file_transfer import FileTransfer
from tuner.servers.docker.stubs import DistantStubs
from tuner.servers.docker.usage import container_usage
from tuner.servers.docker.volume import remove_volume
from tuner.servers.docker.watch import ContainerWatch
from tuner.servers.server import End, TritonServer
from tuner.servers.stubs import AnyStub, stubs_of
from tuner.servers.triton_log import last_words, read_log
from tuner.servers.usage import ServerUsage

_LAST_LINES_S = 5.0


class DockerServer(TritonServer):
    """A server that runs in a container, which is named after its mark.

    Args:
        client: A connection to the engine for this server alone; closed with it.
        container: The container, just started.
        mark: The server's mark.
        model: The name of the model that it loads.
        log: The file that its output is copied to.
        command: The equivalent `docker run` command.
        port: Its gRPC port in the container; one other than `GRPC_PORT` is a port of the host network.
        location: Where the engine is.
        transfer: How the repository got into the container.
        headers: Headers sent with every request.
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
        location: EngineLocation,
        transfer: FileTransfer,
        headers: tuple[Header, ...] = (),
    ) -> None:
        container.reload()
        of_machine = f"{location.publish_on}:{port}"
        address = of_machine if port != GRPC_PORT else address_of(container.attrs, GRPC_PORT, location)
        super().__init__(mark=mark, model=model, log=log, grpc_address=address, command=command, headers=headers)
        self._client = client
        self._container = container
        self._location = location
        self._transfer = transfer
        pid: int = container.attrs["State"]["Pid"]
        self._pid = pid if not location.is_distant and _is_seen(pid, str(container.id), mark) else 0
        self._distant_stubs = DistantStubs(container, transfer.here)
        self._watch = ContainerWatch(container, log)

    @property
    def pid(self) -> int:
        """The pid of the server process on this machine; 0 if it is not visible here, or has ended."""
        return self._pid

    def usage(self) -> ServerUsage | None:
        """CPU and memory usage; from the engine if its processes are not visible here, as from another container."""
        return super().usage() or (None if self._stopped else container_usage(self._container))

    def _cause_of(self, error: ServerError) -> ServerError | None:
        """As the base class; also that the container is paused, which is not the candidate's fault."""
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

    def find_stubs(self) -> tuple[AnyStub, ...]:
        """The processes of Python instances, from this machine, or else from the engine."""
        if not self._pid:
            return self._distant_stubs.look()
        found = stubs_of(self._pid)
        return tuple(replace(s, model_file=s.model_file and self._transfer.here(s.model_file)) for s in found)

    def kernel_was_short_of_memory(self) -> bool | None:
        """Whether the kernel has killed processes because memory ran out since the start; None: unknown.

        For another machine, the engine reports it, for this container only.
        """
        if not self._location.is_distant:
            return super().kernel_was_short_of_memory()
        try:
            began = _seconds(self._container.attrs["Created"])
            now = _seconds(self._client.info()["SystemTime"]) + 1
            filters = {"container": self._container.id, "event": "oom"}
            return any(True for _ in self._client.events(since=began, until=now, filters=filters, decode=True))
        except ENGINE_ERRORS:
            return None

    def _end(self) -> End | None:
        return self._watch.end

    def _death(self, what: str, end: End) -> ServerDiedError:
        # How a process ended that is not visible here is unknown.
        unseen = not self._pid and not end.killed
        if unseen and self.kernel_was_short_of_memory():
            end = replace(end, out_of_memory=True)
        return super()._death(what, end)

    def _terminate(self) -> None:
        with engine_trouble(), suppress(APIError):  # it is not running any more
            self._container.kill("SIGTERM")

    def _remove(self) -> None:
        with closing(self._client):
            self._distant_stubs.close()
            remove_container(self._client, str(self.mark))
            if self._transfer.copied:
                remove_volume(self._client, str(self.mark))
            self._watch.join(_LAST_LINES_S)


def _seconds(time: str) -> int:
    """Seconds since 1970 of an engine's time stamp, which is in UTC."""
    return int(datetime.fromisoformat(time[:19] + "+00:00").timestamp())


def _is_seen(pid: int, container_id: str, mark: Mark) -> bool:
    """Whether that process of this machine belongs to that container.

    The engine reports pids of its own namespace; within another container, other processes have these pids.
    """
    if not pid:
        return False
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    # An engine without rights to cgroups leaves the container in ours.
    return container_id in groups or str(mark).encode() in command
