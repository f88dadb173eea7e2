"""Volumes of an engine in which a container sees files that the engine does not find on its own machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from docker import DockerClient
from docker.types import Mount

from tuner.servers.docker.removal import remove_for_certain


@dataclass(frozen=True)
class Volume:
    """A named volume, as a container sees it; made with the first container that does.

    Attributes:
        name: Of the volume.
        target: Where the container sees it.
        labels: How its leftovers are known.
        writable: Whether the container may write there.
    """

    name: str
    target: PurePosixPath
    labels: Mapping[str, str] = field(default_factory=dict)
    writable: bool = False

    def mount(self) -> Mount:
        """As docker-py wants it."""
        return Mount(
            str(self.target),
            self.name,
            type="volume",
            read_only=not self.writable,
            no_copy=True,
            labels=dict(self.labels),
        )

    def __str__(self) -> str:
        """As `docker run --mount` wants it."""
        return f"type=volume,source={self.name},target={self.target}" + ("" if self.writable else ",readonly")


def remove_volume(client: DockerClient, name: str) -> None:
    """Remove a volume that no container has any more; harmless when there is none.

    Raises:
        TuningError: the engine does not do it.
    """
    remove_for_certain(lambda: client.volumes.get(name).remove())
