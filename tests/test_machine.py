from __future__ import annotations

import os
from pathlib import Path

import pynvml
import pytest

from tuner import machine
from tuner.machine import Gpu, Machine


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


def test_gpus_as_nvml_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # The one thing that a machine without a GPU cannot have: the answers of its driver.
    class Memory:
        total = 80 * 2**30

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda _: "GPU-1",
        "nvmlDeviceGetName": lambda _: "NVIDIA H100",
        "nvmlDeviceGetMemoryInfo": lambda _: Memory,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    assert Machine.here().gpus == (Gpu("GPU-1", "NVIDIA H100", 80 * 2**30),)
