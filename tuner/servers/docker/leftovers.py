"""Labels that mark containers and volumes as ours, and the removal of leftovers of killed runs."""

from __future__ import annotations

from collections.abc import Mapping

from docker import DockerClient
from docker.errors import NotFound

from tuner.core.lease import boot_id
from tuner.core.mark import Mark
from tuner.core.proc import pid_namespace
from tuner.servers.docker.container import remove_container
from tuner.servers.docker.engine import engine_trouble
from tuner.servers.docker.engine_location import EngineLocation, locate_engine
from tuner.servers.docker.volume import remove_volume

_MARK_LABEL = "tritontune.mark"
_CONTAINER_LABEL = "tritontune.container"
"""The label with the id of the owner's container, if that is a container of the same engine."""


def labels_of(mark: Mark, location: EngineLocation) -> dict[str, str]:
    """The labels of a container or volume of ours."""
    labels = {_MARK_LABEL: str(mark)}
    return {**labels, _CONTAINER_LABEL: location.container} if location.container else labels


def remove_leftovers(client: DockerClient) -> tuple[str, ...]:
    """Remove the containers and volumes whose owner is known to be gone. Returns the names of their servers.

    The owner is a process of this machine, or in a container of this engine.

    Raises:
        TuningError: the engine fails to remove them.
    """
    with engine_trouble():
        judge = _Judge(client)
        containers = [
            (container.attrs["Names"][0].removeprefix("/"), container.attrs["Labels"])
            for container in client.containers.list(all=True, filters={"label": _MARK_LABEL}, sparse=True)
        ]
        volumes = [
            (str(volume.name), volume.attrs["Labels"]) for volume in client.volumes.list(filters={"label": _MARK_LABEL})
        ]
        names = [name for name, labels in containers if judge.is_abandoned(labels)]
        left = [name for name, labels in volumes if judge.is_abandoned(labels)]
        for name in names:
            remove_container(client, name)
        for name in left:
            remove_volume(client, name)
    return tuple(sorted({str(Mark.of(name) or name) for name in (*names, *left)}))


class _Judge:
    """Decides whether an owner is gone."""

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._location = locate_engine(client)
        self._running: dict[str, bool] = {}

    def is_abandoned(self, labels: Mapping[str, str]) -> bool:
        mark, container = Mark.of(labels[_MARK_LABEL]), labels.get(_CONTAINER_LABEL)
        if mark is None:
            return False
        if container is None:
            return mark.abandoned
        if container == self._location.container:
            # Processes from before the container was restarted are gone.
            return (mark.boot, mark.namespace) != (boot_id(), pid_namespace()) or mark.abandoned
        return not self._runs(container)

    def _runs(self, container: str) -> bool:
        if container not in self._running:
            try:
                status = self._client.containers.get(container).status
            except NotFound:
                status = "gone"
            self._running[container] = status in {"running", "paused", "restarting"}
        return self._running[container]
