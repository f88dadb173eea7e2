from __future__ import annotations

import pytest
from support.docker_image import IMAGE, docker_engine

from tuner.errors import JobError
from tuner.job import TuneJob
from tuner.servers.choose import choose_launcher
from tuner.servers.docker import DockerLauncher
from tuner.servers.process import ProcessLauncher

NOBODY = "unix:///nowhere/docker.sock"


def _choose(**options: str) -> tuple[object, list[str]]:
    notes: list[str] = []
    return choose_launcher(TuneJob.make({"repository": "repo", **options}), notes.append), notes


@pytest.mark.triton
@pytest.mark.parametrize("server", ["auto", "process"])
def test_without_an_image_a_process(server: str) -> None:
    launcher, notes = _choose(server=server)
    assert isinstance(launcher, ProcessLauncher)
    assert notes == []


@pytest.mark.triton
def test_auto_says_why_it_does_not_take_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    launcher, (note,) = _choose(server="auto", image="tritontune-cpu:test")
    assert isinstance(launcher, ProcessLauncher)
    assert note.startswith("a local process instead of --image tritontune-cpu:test: ")


@pytest.mark.docker
@pytest.mark.parametrize("server", ["auto", "docker"])
def test_with_an_image_docker(server: str) -> None:
    with docker_engine():
        launcher, notes = _choose(server=server, image=IMAGE)
    assert isinstance(launcher, DockerLauncher)
    assert notes == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"server": "docker"}, "--server docker needs --image"),
        ({"server": "process", "image": "x"}, "--image is for Docker"),
        ({"server": "docker", "image": "x", "triton_path": "y"}, "--image and --triton-path exclude each other"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, str], complaint: str) -> None:
    with pytest.raises(JobError, match=complaint):
        _choose(**options)


def test_docker_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOBODY)
    with pytest.raises(JobError, match="--server docker: "):
        _choose(server="docker", image="tritontune-cpu:test")
