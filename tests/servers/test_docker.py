from __future__ import annotations

from collections.abc import Callable, Iterator

import docker
import pytest
from support.launcher_contract import LauncherContract, Traces

from tuner.servers.docker import DockerLauncher
from tuner.servers.docker_server import DockerServer
from tuner.servers.mark import Mark
from tuner.servers.protocols import Server

pytestmark = pytest.mark.docker

IMAGE = "tritontune-cpu:test"


def server_of(server: Server) -> DockerServer:
    assert isinstance(server, DockerServer)
    return server


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = docker.DockerClient.from_env()
    yield client
    client.close()


@pytest.fixture
def traces(engine: docker.DockerClient) -> Traces:
    def find(pid: int) -> set[str]:
        names = [container.name or "" for container in engine.containers.list(all=True)]
        return {name for name in names if (mark := Mark.of(name)) and mark.pid == pid}

    return find


class TestDockerLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self) -> DockerLauncher:
        return DockerLauncher(IMAGE)

    @pytest.fixture
    def launcher_source(self) -> str:
        return f"from tuner.servers.docker import DockerLauncher\nlauncher = DockerLauncher({IMAGE!r})"

    @pytest.fixture
    def kill(self, engine: docker.DockerClient) -> Callable[[Server], None]:
        return lambda server: engine.containers.get(str(server_of(server).mark)).kill()
