"""Which GPUs a container's programs see, told by what it is asked; no engine is asked."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tuner.core.machine import Machine
from tuner.core.nvml import Gpu
from tuner.options.groups import ServerOptions
from tuner.servers import choose_launcher as choose
from tuner.servers.docker import launcher as docker
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.docker.launcher import DockerLauncher


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "connect", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(docker, "locate_engine", lambda _: SimpleNamespace(is_distant=False))
    monkeypatch.setattr(choose, "engine_problem", lambda _: None)
    monkeypatch.setattr(choose, "ensure_image", lambda *_: None)
    monkeypatch.setattr(DockerLauncher, "look", lambda _: None)
    gpus = (Gpu(0, "GPU-aa11", "a GPU", 1), Gpu(1, "GPU-bb22", "a GPU", 1))
    monkeypatch.setattr(Machine, "here", lambda: Machine(cpus=2, gpus=gpus, processor="x86_64"))


def test_a_variable_narrows_what_a_container_has() -> None:
    options = ContainerOptions(gpus="all", environment={"CUDA_VISIBLE_DEVICES": "1"})
    assert DockerLauncher("image", options).gpus == "1"


@pytest.mark.parametrize(
    ("variables", "seen"),
    [
        ([], "all"),
        (["CUDA_VISIBLE_DEVICES=1"], "1"),
        (["CUDA_VISIBLE_DEVICES"], "GPU-bb22"),
        (["NVIDIA_VISIBLE_DEVICES=1"], "1"),
        (["NVIDIA_VISIBLE_DEVICES=1", "CUDA_VISIBLE_DEVICES=0"], "1"),
        (["NVIDIA_VISIBLE_DEVICES=void"], "none"),
    ],
)
def test_the_gpus_of_a_job_in_docker(variables: list[str], seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb22")
    job = ServerOptions.make({"server": "docker", "image": "triton", "env": variables})
    assert choose.choose_launcher(job, pytest.fail).gpus == seen
