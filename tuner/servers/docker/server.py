"""A Triton that runs in a container."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError
from docker.models.containers import Container

from tuner.core.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.core.mark import Mark
from tuner.options.endpoint import Header
from tuner.servers.docker.container import GRPC_PORT, remove_container
from tuner.servers.docker.engine import ENGINE_ERRORS, engine_trouble
from tuner.servers.docker.engine_location import EngineLocation
from tuner.servers.docker.file_transfer import FileTransfer
from tuner.servers.docker.stubs import DistantStubs
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
        port: Its gRPC port in the container; a port other than `GRPC_PORT` is a port of the host network.
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
        """CPU and memory usage; reported by the engine if its processes are not visible here."""
        return super().usage() or (None if self._stopped else container_usage(self._container))

    def _cause_of(self, error: ServerError) -> ServerError | None:
        """See `TritonServer`; also recognises a paused container, which is not the candidate's fault."""
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
        stubs = stubs_of(self._pid)
        return tuple(replace(s, model_file=s.model_file and self._transfer.here(s.model_file)) for s in stubs)

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
        # The end of a process that is not visible here is unknown.
        unseen = not self._pid and not end.killed
        if unseen and self.kernel_was_short_of_memory():
            end = replace(end, out_of_memory=True)
        return super()._death(what, end)

    def _terminate(self) -> None:
        with engine_trouble(), suppress(APIError):  # it is no longer running
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

    The engine reports pids of its own namespace. In another container, other processes have these pids.
    """
    if not pid:
        return False
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    # An engine without rights to cgroups leaves the container in our cgroup.
    return container_id in groups or str(mark).encode() in command


def container_usage(container: Container) -> ServerUsage | None:
    """CPU seconds since the container's start, and memory in use without the cache of files, as `docker stats` counts.

    None if it does not run. Takes up to a second, the engine's own sampling period.
    """
    try:
        stats = container.stats(stream=False, one_shot=True)
    except ENGINE_ERRORS:
        return None
    return _usage(stats) if isinstance(stats, dict) else None


def _usage(stats: Mapping[str, Any]) -> ServerUsage | None:
    memory, processors = stats.get("memory_stats") or {}, stats.get("cpu_stats") or {}
    details = memory.get("stats") or {}
    if "usage" not in memory or "cpu_usage" not in processors:
        return None
    # cgroup v2, and v1.
    cache = details.get("inactive_file", details.get("total_inactive_file", 0))
    return ServerUsage(cpu_s=processors["cpu_usage"]["total_usage"] / 1e9, memory_bytes=max(0, memory["usage"] - cache))


def address_of(attributes: Mapping[str, Any], port: int, location: EngineLocation) -> str:
    """`host:port` of a TCP port of a container: the container's own address if it is on a network of ours.

    A published port is slower: every byte passes through the process `docker-proxy`. That adds some 0.2 ms to a
    request, and takes CPU time from the server.

    Args:
        attributes: `docker inspect` of the container, which runs and publishes the port. For an ended container, the
            returned address is not valid.
        port: The port within the container.
        location: Where the engine is.
    """
    settings = attributes["NetworkSettings"]
    networks = {name: network for name, network in settings["Networks"].items() if network["IPAddress"]}
    for name, network in networks.items():
        if name in location.networks or _is_on_this_machine(network, location):
            return f"{network['IPAddress']}:{port}"
    if location.container and "host" not in location.networks and networks:
        # This process shares the network of another container, so it cannot reach published ports.
        return f"{next(iter(networks.values()))['IPAddress']}:{port}"
    published = (settings["Ports"] or {}).get(f"{port}/tcp") or [{"HostPort": "0"}]
    return f"{location.publish_on}:{published[0]['HostPort']}"


def _is_on_this_machine(network: Mapping[str, Any], location: EngineLocation) -> bool:
    """Whether this machine is the network's gateway. Networks of another machine may have the same addresses."""
    gateway = network["Gateway"]
    return not location.is_distant and bool(gateway) and _source_towards(network["IPAddress"]) == gateway


def _source_towards(ip: str) -> str | None:
    """The source address that the kernel would use to reach `ip`; None: no route. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((ip, 1))
        except OSError:
            return None
        source: str = probe.getsockname()[0]
        return source
