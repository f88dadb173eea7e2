"""tritontune in containers, and with engines that are reached in other ways than by their socket here."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container
from support.command_line import await_that, tritontune
from support.docker_image import IMAGE, TUNER_IMAGE
from support.engine_cable import Cable

pytestmark = pytest.mark.docker

SOCKET = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
ROOT = Path(__file__).parents[2]
HASTY = ("--max-concurrency", "2", "--no-verify")


def traces_of(owner: str, engine: docker.DockerClient) -> set[str]:
    """What the engine has of a tuner in a container."""
    label = {"label": f"tritontune.container={owner}"}
    listed = engine.containers.list(all=True, filters={**label}, sparse=True)
    containers = {container.attrs["Names"][0] for container in listed}
    return containers | {str(volume.name) for volume in engine.volumes.list(filters={**label})}


@pytest.fixture
def tuner(engine: docker.DockerClient, slow_model: Path) -> Iterator[Container]:
    """A tuner in a container, not yet started, in which alone the repository is."""
    container = engine.containers.create(
        TUNER_IMAGE,
        ["run", "/work/models", "--server", "docker", "--image", IMAGE, "--trials", "2", *HASTY],
        group_add=[SOCKET.stat().st_gid],
        volumes=[f"{SOCKET}:/var/run/docker.sock"],
    )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(slow_model, "models")
    container.put_archive("/work", archive.getvalue())
    try:
        yield container
    finally:
        container.remove(force=True)


def test_a_repository_that_lies_only_in_the_tuners_container(tuner: Container, engine: docker.DockerClient) -> None:
    tuner.start()
    code = tuner.wait(timeout=100)["StatusCode"]
    said = tuner.logs().decode()
    assert code == 0, said
    assert "slow: all 2 trials are done" in said
    assert "trial 1: " in said
    assert not traces_of(str(tuner.id), engine)


@pytest.mark.faults
def test_what_a_killed_tuner_leaves_is_removed(tuner: Container, engine: docker.DockerClient) -> None:
    tuner.start()
    owner = str(tuner.id)
    await_that(lambda: b"trial 0: " in tuner.logs() and len(traces_of(owner, engine)) >= 3, within_s=60)
    assert "leftovers" in tritontune("doctor").stdout
    assert traces_of(owner, engine)
    tuner.kill()
    assert traces_of(owner, engine)
    assert re.search(r"leftovers +removed what killed runs left: .*\d containers? \(", tritontune("doctor").stdout)
    assert not traces_of(owner, engine)


def test_an_engine_that_is_reached_over_tcp(
    engine: docker.DockerClient, slow_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cable.over_tcp() as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        done = tritontune("measure", slow_model, "--server", "docker", "--image", IMAGE, "--time", "1s")
    assert done.returncode == 0, done.stderr
    assert engine.ping()


def test_compose_tunes_with_one_command(engine: docker.DockerClient, slow_model: Path) -> None:
    assert engine.ping()
    if shutil.which("docker-compose") is None:
        pytest.skip("needs docker-compose")
    text = (ROOT / "docker/compose.yaml").read_text()
    # Debian's docker-compose is one of before Compose V2, and makes no folder for a mount that is written at length.
    older = re.sub(r"\n +bind:\n +create_host_path: false", "", text)
    assert older != text
    compose = ["docker-compose", "--file", "-", "--project-name", f"test{os.getpid()}"]
    folder = ROOT / "docker"
    environment = {
        **os.environ,
        "DOCKER_GID": str(SOCKET.stat().st_gid),
        "DOCKER_SOCKET": str(SOCKET),
        "TRITONTUNE_IMAGE": TUNER_IMAGE,
        "TRITON_CPU_IMAGE": IMAGE,
        "MODELS": str(slow_model),
        "BUDGET": "5s",
    }
    try:
        done = subprocess.run(
            [*compose, "run", "--rm", "-T", "tune"],
            input=older,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    finally:
        down = [*compose, "down", "--volumes"]
        subprocess.run(
            down, input=older, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    assert done.returncode == 0, done.stderr
    assert "baseline: " in done.stdout
