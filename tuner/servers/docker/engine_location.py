"""Finds out where the engine runs: on this machine, outside of our container, or on another machine."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from docker import DockerClient
from docker.errors import NotFound

from tuner.core.errors import TuningError

_LOOPBACK = "127.0.0.1"
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 (used if the engine's machine lacks the address by which we reach it)
# Each container has its own /etc/hostname etc., mounted from a folder that is named after its id.
_MOUNTED_FROM_OWN_FOLDER = re.compile(
    r"/(?:overlay-)?containers/(?P<id>[0-9a-f]{64})/\S*(?:hostname|hosts|resolv\.conf) ", re.ASCII
)
_UNNAMED = frozenset({"bridge", "default", "host", "none"})


@dataclass(frozen=True)
class EngineLocation:
    """The location of an engine.

    Attributes:
        host: The IPv4 address of the engine's machine; None: this machine.
        container: The id of the container that we run in, if it is one of this engine.
        networks: The names of that container's networks; empty for the host network.
    """

    host: str | None = None
    container: str | None = None
    networks: tuple[str, ...] = ()

    @property
    def is_distant(self) -> bool:
        """Whether the engine is on another machine, with another kernel."""
        return self.host is not None and self.container is None

    @property
    def publish_on(self) -> str:
        """The address of the engine's machine on which ports are published, reachable from here."""
        return self.host if self.host and self.is_distant else _LOOPBACK

    @property
    def publish_at_worst_on(self) -> str:
        """The address to publish on if the engine's machine lacks the address of `publish_on`, as behind a NAT."""
        return _ALL_ADDRESSES if self.is_distant else _LOOPBACK

    @property
    def network(self) -> str | None:
        """The network that a server must join, so that we can reach it; None: the engine's default."""
        if "bridge" in self.networks:
            return None
        return next((name for name in self.networks if name not in _UNNAMED), None)


def locate_engine(client: DockerClient) -> EngineLocation:
    """Find out where the engine of a client is.

    Raises:
        TuningError: the host name of DOCKER_HOST cannot be resolved.
        DockerException, RequestException: the engine fails.
    """
    location = EngineLocation(host=_host(os.environ.get("DOCKER_HOST", "")))
    for number in _containers_around():
        with suppress(NotFound):  # a container of another engine
            own = client.containers.get(number)
            return EngineLocation(location.host, number, tuple(own.attrs["NetworkSettings"]["Networks"]))
    return location


def engine_address(docker_host: str) -> tuple[str, int] | None:
    """Host and port of an engine that is reached over the network; None: it is reached by a socket file."""
    parts = urlsplit(docker_host)
    if parts.scheme not in {"tcp", "http", "https", "ssh"} or not parts.hostname:
        return None
    return parts.hostname, parts.port or {"ssh": 22, "https": 2376}.get(parts.scheme, 2375)


def _host(docker_host: str) -> str | None:
    address = engine_address(docker_host)
    if address is None:
        return None
    try:
        addresses = socket.getaddrinfo(address[0], None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise TuningError(f"DOCKER_HOST: cannot resolve host {address[0]!r}: {error.strerror}") from error
    host = str(addresses[0][4][0])
    return None if _is_ours(host) else host


def _is_ours(ip: str) -> bool:
    """Whether an address belongs to this machine, so that a socket can bind to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
        return True


def _containers_around() -> list[str]:
    """Candidate ids of the container that this process runs in, from its mounts."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return list(dict.fromkeys(match["id"] for match in _MOUNTED_FROM_OWN_FOLDER.finditer(mounts)))
