from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from support.docker_image import IMAGE, docker_engine
from support.launcher_contract import await_death
from support.repositories import ModelRepositoryFactory

from tuner.errors import TuningError
from tuner.servers import docker_engine as engine_module
from tuner.servers.docker import DockerLauncher, engine_problem
from tuner.servers.docker_engine import connect
from tuner.servers.docker_server import DockerServer
from tuner.servers.protocols import Launch

_ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class Cable:
    """A socket that leads to the engine, until it is cut."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Leave nobody at the other end."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(5)
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(_ENGINE)
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=_pass_on, args=(source, target)))
                self._threads[-1].start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # cut
        return


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    with docker_engine() as client:
        yield client


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where, for us, the engine's socket is."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def assert_problem(expected: str) -> None:
    problem = engine_problem("any")
    assert problem is not None
    assert expected in problem
    assert "\n" not in problem
    with pytest.raises(TuningError) as caught:
        connect(timeout_s=1)
    assert str(caught.value) == problem


def test_no_socket(path: Path) -> None:
    assert_problem(f"there is no Docker engine: {path} does not exist")


def test_a_socket_on_which_nobody_listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as forgotten:
        forgotten.bind(str(path))
        assert_problem(f"the Docker engine does not answer at {path}: Connection refused")


def test_an_engine_that_does_not_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_ASK_S", 1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        assert_problem("the Docker engine does not answer")


def test_a_socket_that_is_not_for_us(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)  # root may do anything
    assert_problem(f"this user may not use the Docker engine: {path} is for root")


@pytest.mark.parametrize("host", ["nonsense://x", "ssh://someone@elsewhere"])
def test_an_address_that_leads_nowhere(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert_problem("the Docker engine cannot be used: ")


def test_an_engine_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    assert_problem("DOCKER_HOST names an engine on another machine")


@pytest.mark.docker
def test_an_image_that_can_be_used(engine: docker.DockerClient) -> None:
    assert engine.ping()
    assert engine_problem(IMAGE) is None


@pytest.mark.docker
def test_an_image_that_is_not_there(engine: docker.DockerClient) -> None:
    assert engine.ping()
    assert engine_problem("tritontune-absent:1") == (
        "image 'tritontune-absent:1' is not on this machine; get it with: docker pull tritontune-absent:1"
    )


@pytest.mark.docker
@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning"
)  # docker-py leaves one whenever it cannot connect
def test_an_engine_that_goes_away_under_a_server(
    engine: docker.DockerClient, path: Path, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    cable = Cable(path)
    request = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "server.log", 60)
    try:
        server = DockerLauncher(IMAGE).launch(request)
    finally:
        cable.cut()
    assert isinstance(server, DockerServer)
    death = await_death(server)
    assert str(death) == "Triton is out of sight: the Docker engine does not answer"
    assert "Started GRPCInferenceService" in death.last_words
    with pytest.raises(TuningError, match="the Docker engine does not answer"):
        server.stop()
    with pytest.raises(TuningError, match="the Docker engine does not answer"):
        DockerLauncher(IMAGE).launch(request)

    path.unlink()
    cable = Cable(path)
    try:
        server.stop()
    finally:
        cable.cut()
    with pytest.raises(docker.errors.NotFound):
        engine.containers.get(str(server.mark))
    gc.collect()  # of those sockets, while they may be complained about
