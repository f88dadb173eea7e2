"""How containers and volumes are known as ours, and what a killed run left behind is removed."""

from __future__ import annotations

from collections.abc import Mapping

from docker import DockerClient
from docker.errors import NotFound

from tuner.core.lease import boot_id
from tuner.core.mark import Mark
from tuner.core.proc import pid_namespace
from tuner.servers.docker.container import remove_container
from tuner.servers.docker.engine import engine_trouble
from tuner.servers.docker.site import Site, site_of
from tuner.servers.docker.volume import remove_volume

_MARK_LABEL = "tritontune.mark"
_CONTAINER_LABEL = "tritontune.container"
"""The container that the owner is in, when it is one of the same engine."""


def labels_of(mark: Mark, site: Site) -> dict[str, str]:
    """What a container or volume of ours carries."""
    labels = {_MARK_LABEL: str(mark)}
    return {**labels, _CONTAINER_LABEL: site.container} if site.container else labels


def remove_leftovers(client: DockerClient) -> tuple[str, ...]:
    """Remove the containers and volumes whose owner is surely gone. Returns the names of their servers.

    That is a process of this machine, or of a container of this engine that has ended.

    Raises:
        TuningError: the engine does not do it.
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
    """Tells whether an owner is gone."""

    def __init__(self, client: DockerClient) -> None:
        self._client = client
        self._site = site_of(client)
        self._running: dict[str, bool] = {}

    def is_abandoned(self, labels: Mapping[str, str]) -> bool:
        mark, container = Mark.of(labels[_MARK_LABEL]), labels.get(_CONTAINER_LABEL)
        if mark is None:
            return False
        if container is None:
            return mark.abandoned
        if container == self._site.container:
            # What was in it before it was started anew is gone.
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
