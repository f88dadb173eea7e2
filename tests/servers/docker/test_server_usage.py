from __future__ import annotations

import os
import time
from collections.abc import Iterator

import docker
import pytest
from support.docker_image import IMAGE, container_of

from tuner.servers.docker.launcher import DockerLauncher
from tuner.servers.docker.server import container_usage
from tuner.servers.protocols import Launch, Server
from tuner.servers.usage import ProcessUsage
from tuner.testing.launcher_contract import infer
from tuner.testing.repositories import ModelRepositoryFactory

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def server(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert engine.ping()
    folder = tmp_path_factory.mktemp("usage")
    repository = ModelRepositoryFactory(folder / "models")
    launch = Launch(repository.path, repository.add("identity"), folder / "log", 60)
    with DockerLauncher(IMAGE).launch(launch) as running:
        yield running


def test_the_processes_of_a_container_are_seen_from_here(server: Server, engine: docker.DockerClient) -> None:
    seen, told = server.usage(), container_usage(container_of(server, engine))
    assert seen is not None
    assert told is not None
    assert seen.cpu_s == pytest.approx(told.cpu_s, abs=0.5)
    # The engine leaves out pages of files, as of libraries, that others had read before.
    assert 0.2 * seen.memory_bytes < told.memory_bytes < 1.2 * seen.memory_bytes


def test_where_they_are_not_the_engine_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # In a container of our own, that pid is nobody's or another's.
    monkeypatch.setattr(server, "_usage", ProcessUsage(os.getpid(), "another's"))
    before = server.usage()
    assert before is not None
    assert 20 << 20 < before.memory_bytes < 2 << 30
    deadline = time.monotonic() + 30
    while (server.usage() or before).cpu_s <= before.cpu_s:
        assert time.monotonic() < deadline
        infer(server, "identity")


def test_of_a_container_that_is_gone_nothing_is_said(engine: docker.DockerClient) -> None:
    container = engine.containers.create(IMAGE, ["true"])
    try:
        assert container_usage(container) is None
    finally:
        container.remove()
    assert container_usage(container) is None
