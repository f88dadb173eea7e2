from __future__ import annotations

import os
import shlex
from pathlib import Path

import psutil
import pytest
from support.command_line import servers_of
from support.nvml import StandInGpu, StandInLibrary, installed

from tuner.core.errors import JobError
from tuner.servers.docker.container_options import ContainerOptions
from tuner.servers.installation import TritonInstallation
from tuner.servers.pins import NO_PINS, Pins, core_list
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory

_GPUS = StandInGpu("GPU-aaaa"), StandInGpu("GPU-bbbb")


@pytest.fixture
def launch(model_repository: ModelRepositoryFactory, tmp_path: Path) -> Launch:
    return Launch(model_repository.path, model_repository.add("identity"), tmp_path / "server.log", 60)


@pytest.mark.parametrize(
    ("cores", "text"), [({3, 0, 1, 2, 8}, "0-3,8"), ({5}, "5"), ({4, 6}, "4,6"), (set(), ""), ({9, 10}, "9-10")]
)
def test_cores_as_the_kernel_lists_them(cores: set[int], text: str) -> None:
    assert core_list(cores) == text


def test_servers_and_their_command_are_pinned(fake_triton: TritonInstallation, launch: Launch) -> None:
    core = max(os.sched_getaffinity(0))
    launcher = ProcessLauncher(fake_triton, pins=Pins(cores=frozenset({core})))
    assert launcher.machine.cpus == 1
    assert launcher.description == ProcessLauncher(fake_triton).description
    with launcher.launch(launch) as server:
        assert shlex.split(server.command)[:4] == ["taskset", "--cpu-list", str(core), "env"]
        servers = [each for each in psutil.Process().children() if each.cpu_affinity() == [core]]
        assert servers or len(os.sched_getaffinity(0)) == 1


@pytest.mark.triton
@pytest.mark.slow
def test_a_real_server_and_its_python_models_are_pinned(
    triton_installation: TritonInstallation, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    core = max(os.sched_getaffinity(0))
    launch = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "server.log", 60)
    with ProcessLauncher(triton_installation, pins=Pins(cores=frozenset({core}))).launch(launch) as server:
        (triton,) = [each for each in servers_of(launch.repository) if each.ppid() == os.getpid()]
        family = [triton, *triton.children(recursive=True)]
        assert len(family) > 1
        assert {tuple(each.cpu_affinity()) for each in family} == {(core,)}
        server.check()


def test_pinned_gpus_come_before_the_users_and_are_not_described(fake_triton: TritonInstallation) -> None:
    with installed(StandInLibrary(*_GPUS)):
        pinned = ProcessLauncher(fake_triton, gpus="0,1", pins=Pins("GPU-bbbb"))
        plain = ProcessLauncher(fake_triton, gpus="0,1")
        with pytest.raises(JobError, match="--gpus: this machine has no GPU GPU-cccc"):
            ProcessLauncher(fake_triton, pins=Pins("GPU-cccc"))
    assert (pinned.gpus, plain.gpus) == ("GPU-bbbb", "0,1")
    assert pinned.description == plain.description


def test_containers_get_the_pinned_cores_and_gpus() -> None:
    asked = ContainerOptions(
        gpus="all",
        environment={"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2"},
        more={"init": True, "cpuset_cpus": "0-7"},
        pins=Pins("GPU-bbbb", frozenset({2, 3})),
    )
    assert asked.devices == "GPU-bbbb"
    assert asked.variables == {"OMP_NUM_THREADS": "2"}
    assert asked.keywords == {"init": True, "cpuset_cpus": "2-3"}
    assert asked.cores(64) == 2
    assert "cpuset_cpus 0-7" in list(asked.words())
    plain = ContainerOptions(gpus="all", environment={"CUDA_VISIBLE_DEVICES": "1"}, more={"init": True})
    assert (plain.devices, plain.variables, plain.keywords) == ("all", plain.environment, plain.more)


def test_pins_tell_whether_there_are_any() -> None:
    assert [bool(pins) for pins in (NO_PINS, Pins("GPU-a"), Pins(cores=frozenset({1})))] == [False, True, True]
