from __future__ import annotations

import os
from pathlib import Path

import pynvml
import pytest
from support.nvml import GIB, StandInGpu, StandInLibrary, installed

from tuner.core import machine
from tuner.core.machine import Machine, NumaNode, numa_nodes


def test_this_machine() -> None:
    here = Machine.here()
    assert here.cpus
    assert 1 <= here.cpus <= (os.cpu_count() or 1)
    assert str(here).startswith(f"{here.cpus} CPU cores, ")


@pytest.mark.parametrize(("limit", "cpus"), [("50000 100000", 1), ("max 100000", None), ("150000 100000", 2)])
def test_a_containers_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, cpus: int | None
) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(machine, "_CGROUP_V2", tmp_path / "cpu.max")
    available = len(os.sched_getaffinity(0))
    assert Machine.here().cpus == min(available, cpus or available)


def test_gpus_as_nvml_names_them() -> None:
    with installed(StandInLibrary(StandInGpu(), StandInGpu("GPU-bbbb", "NVIDIA L4", total=24 * GIB))):
        here = Machine.here()
    assert [(gpu.name, gpu.memory_bytes) for gpu in here.gpus] == [
        ("NVIDIA H100 80GB HBM3", 80 * GIB),
        ("NVIDIA L4", 24 * GIB),
    ]
    assert str(here).endswith(" CPU cores, NVIDIA H100 80GB HBM3, NVIDIA L4")


def test_without_a_driver_there_are_none() -> None:
    with installed(StandInLibrary(StandInGpu(), init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)):
        assert Machine.here().gpus == ()


class TestNumaNodes:
    @staticmethod
    def _sysfs(folder: Path, **lists: str) -> Path:
        for name, cpus in lists.items():
            (folder / name).mkdir()
            (folder / name / "cpulist").write_text(f"{cpus}\n")
        (folder / "online").write_text("0-1\n")
        return folder

    def test_they_are_read_in_order_with_their_cores(self, tmp_path: Path) -> None:
        nodes = numa_nodes(self._sysfs(tmp_path, node10="8-11", node2="4-7", node0="0-3,12-15"))
        assert nodes == (NumaNode(0, "0-3,12-15"), NumaNode(2, "4-7"), NumaNode(10, "8-11"))

    def test_a_node_of_memory_alone_does_not_count(self, tmp_path: Path) -> None:
        assert numa_nodes(self._sysfs(tmp_path, node0="0-3", node1="")) == (NumaNode(0, "0-3"),)

    def test_without_sysfs_they_are_unknown(self, tmp_path: Path) -> None:
        assert numa_nodes(tmp_path / "none") == ()

    def test_this_machine_has_one_or_more(self) -> None:
        assert set(Machine.here().nodes) <= set(numa_nodes())

    def test_nodes_whose_cores_may_not_be_used_do_not_count(self, tmp_path: Path) -> None:
        folder = self._sysfs(tmp_path, node0="0-3,12-15", node1="4-7", node2="odd")
        assert [node.number for node in numa_nodes(folder, {14})] == [0]
        assert [node.number for node in numa_nodes(folder, {3, 4})] == [0, 1]
        assert numa_nodes(folder, {8}) == ()
