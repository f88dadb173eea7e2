from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from support.docker_image import IMAGE, container_of, containers_of, image_with

from tuner.core.errors import LaunchError, TuningError
from tuner.core.mark import Mark
from tuner.servers.docker import launcher as docker_module
from tuner.servers.docker.container import remove_container
from tuner.servers.docker.launcher import DockerLauncher
from tuner.servers.protocols import Launch, Server
from tuner.testing.launcher_contract import LauncherContract, Traces
from tuner.testing.repositories import ModelRepositoryFactory

pytestmark = pytest.mark.docker


@pytest.fixture
def launcher() -> DockerLauncher:
    return DockerLauncher(IMAGE)


@pytest.fixture
def traces(engine: docker.DockerClient) -> Traces:
    return lambda pid: containers_of(pid, engine)


@pytest.fixture
def request_(model_repository: ModelRepositoryFactory, tmp_path: Path) -> Launch:
    return Launch(model_repository.path, model_repository.add("identity"), tmp_path / "server.log", 60)


class TestDockerLauncher(LauncherContract):
    gpus = "none"  # a container sees those that it is given

    @pytest.fixture
    def launcher_source(self) -> str:
        return f"from tuner.servers.docker.launcher import DockerLauncher\nlauncher = DockerLauncher({IMAGE!r})"

    @pytest.fixture
    def kill(self, engine: docker.DockerClient) -> Callable[[Server], None]:
        return lambda server: container_of(server, engine).kill()


def test_says_what_it_is(launcher: DockerLauncher, engine: docker.DockerClient) -> None:
    assert IMAGE in launcher.description
    assert str(engine.images.get(IMAGE).id) in launcher.description


def test_leaves_no_thread_and_no_connection(launcher: DockerLauncher, request_: Launch) -> None:
    launcher.launch(request_).stop()  # what gRPC keeps for good is there from now on
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        launcher.launch(request_).stop()
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before


def test_anonymous_volumes_go_with_the_container(engine: docker.DockerClient, request_: Launch) -> None:
    with image_with(engine, "VOLUME /data") as image:
        with DockerLauncher(image).launch(request_) as server:
            (volume,) = [m["Name"] for m in container_of(server, engine).attrs["Mounts"] if m["Type"] == "volume"]
            assert engine.volumes.get(volume)
        with pytest.raises(docker.errors.NotFound):
            engine.volumes.get(volume)


def test_an_image_without_triton(engine: docker.DockerClient, request_: Launch, traces: Traces) -> None:
    with image_with(engine, "ENV PATH=/usr/bin:/bin") as image:
        with pytest.raises(
            LaunchError, match='Docker cannot start the container: .*"tritonserver": executable'
        ) as caught:
            DockerLauncher(image).launch(request_)
        assert "\n" not in str(caught.value)
        assert not traces(os.getpid())


def test_an_image_that_is_not_there_ends_the_run(request_: Launch) -> None:
    launcher = DockerLauncher("tritontune-absent:1")
    with pytest.raises(TuningError, match="tritontune-absent:1"):
        launcher.launch(request_)
    with pytest.raises(TuningError, match="tritontune-absent:1"):
        _ = launcher.description


@pytest.mark.parametrize("place", ["DockerServer", "await_ready"])
def test_an_interrupted_launch_leaves_nothing(
    place: str, launcher: DockerLauncher, request_: Launch, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        assert traces(os.getpid())
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(docker_module, place, interrupt)
    with pytest.raises(KeyboardInterrupt):
        launcher.launch(request_)
    assert not traces(os.getpid())


def test_leaves_alone_what_is_not_surely_abandoned(launcher: DockerLauncher, engine: docker.DockerClient) -> None:
    gone = replace(Mark.new(), pid=999_999_999)
    other = replace(gone, host="0" * 8, boot="1" * 8)  # on another machine, which uses this engine, too
    old = "tritontune-4026531836-999999999-1-1"  # which does not say on which machine
    labels = {str(mark): {"tritontune.mark": str(mark)} for mark in (gone, other, old)}
    labels[stranger := f"tritontune-stranger-{os.getpid()}"] = {}
    launcher.remove_leftovers()  # of tests that were killed
    try:
        for name, each in labels.items():
            engine.containers.create(IMAGE, "true", name=name, labels=each)
        assert launcher.remove_leftovers() == (str(gone),)
        left = {container.name for container in engine.containers.list(all=True)}
        assert left & labels.keys() == {str(other), old, stranger}
    finally:
        for name in labels:
            remove_container(engine, name)
