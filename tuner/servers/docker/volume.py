"""Docker volumes for files that the engine cannot mount from its own machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from docker import DockerClient
from docker.types import Mount

from tuner.servers.docker.removal import remove_for_certain


@dataclass(frozen=True)
class Volume:
    """A named volume as a container mounts it; created with the first such container.

    Attributes:
        name: The volume's name.
        target: Its path in the container.
        labels: Labels by which leftovers are recognised.
        writable: Whether the container may write there.
    """

    name: str
    target: PurePosixPath
    labels: Mapping[str, str] = field(default_factory=dict)
    writable: bool = False

    def mount(self) -> Mount:
        """The mount for docker-py."""
        return Mount(
            str(self.target),
            self.name,
            type="volume",
            read_only=not self.writable,
            no_copy=True,
            labels=dict(self.labels),
        )

    def __str__(self) -> str:
        """The mount as a value of `docker run --mount`."""
        return f"type=volume,source={self.name},target={self.target}" + ("" if self.writable else ",readonly")


def remove_volume(client: DockerClient, name: str) -> None:
    """Remove a volume that no container uses; no error if it does not exist.

    Raises:
        TuningError: the engine fails to remove it.
    """
    remove_for_certain(lambda: client.volumes.get(name).remove())
