"""What tests marked `docker` need: an engine (`.ci/docker-engine start`) and an image (`.ci/docker-image`)."""

from __future__ import annotations

import gc
import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import docker
import pytest
from docker.models.containers import Container

from tuner.core.mark import Mark
from tuner.servers.docker.launcher import engine_problem
from tuner.servers.docker.server import DockerServer
from tuner.servers.protocols import Server

IMAGE = "tritontune-cpu:test"
TUNER_IMAGE = "tritontune:test"
"""tritontune itself."""
SERVICE_IMAGE = "tritontune-service:test"
"""The same with what `tritontune serve` needs."""


@contextmanager
def docker_engine() -> Iterator[docker.DockerClient]:
    """A client of the engine, and at the end a look at what the tests of this process left there.

    Without the engine or one of the images the tests are skipped, but fail where CI=true says that both must be there.
    """
    if problem := next(filter(None, map(engine_problem, (IMAGE, TUNER_IMAGE, SERVICE_IMAGE))), None):
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)
    with closing(docker.DockerClient.from_env()) as client:
        volumes = _unmarked_volumes(client)
        yield client
        gc.collect()  # launchers that a traceback holds, with the volumes of their models
        assert _unmarked_volumes(client) <= volumes
        assert not containers_of(os.getpid(), client)
        assert not volumes_of(os.getpid(), client)


def containers_of(pid: int, engine: docker.DockerClient) -> set[str]:
    """The names of the containers whose owner has or had this pid."""
    names = [container.name or "" for container in engine.containers.list(all=True, ignore_removed=True)]
    return {name for name in names if (mark := Mark.of(name)) and mark.pid == pid}


def volumes_of(pid: int, engine: docker.DockerClient) -> set[str]:
    """The names of the volumes whose owner has or had this pid."""
    names = [str(volume.name) for volume in engine.volumes.list()]
    return {name for name in names if (mark := Mark.of(name)) and mark.pid == pid}


def _unmarked_volumes(engine: docker.DockerClient) -> set[str]:
    """Whose they are cannot be told; those of other processes' servers are left out."""
    return {name for volume in engine.volumes.list() if not Mark.of(name := str(volume.name))}


def container_of(server: Server, engine: docker.DockerClient) -> Container:
    """The container in which the server runs."""
    assert isinstance(server, DockerServer)
    return engine.containers.get(str(server.mark))


def pause(container: Container) -> None:
    """On a busy machine, the kernel does not always freeze all of a container in the time that it is given."""
    for _ in range(9):
        with suppress(docker.errors.APIError):
            container.pause()
            return
    container.pause()


@contextmanager
def image_with(engine: docker.DockerClient, *instructions: str) -> Iterator[str]:
    """An image made of `IMAGE` and further instructions of a Dockerfile, for as long as the context lasts."""
    dockerfile = "\n".join([f"FROM {IMAGE}", *instructions])
    image, _ = engine.images.build(fileobj=io.BytesIO(dockerfile.encode()), rm=True)
    assert image.id is not None
    try:
        yield image.id
    finally:
        engine.images.remove(image.id)
