from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pytest

from tuner.core import versions
from tuner.core.machine import Machine
from tuner.core.nvml import Gpu
from tuner.options.tune_job import TuneJob
from tuner.study import provenance as module
from tuner.study.provenance import provenance

JOB = TuneJob.make({"repository": "models", "budget": "90s"})


def test_what_a_run_notes_of_itself() -> None:
    gpu = Gpu(0, "GPU-1", "NVIDIA H100", 1 << 30)
    before = datetime.now(timezone.utc).replace(microsecond=0)
    told = provenance(JOB, Machine(cpus=2, gpus=(gpu,), processor="x86_64"))
    began = datetime.strptime(told.began, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before <= began <= datetime.now(timezone.utc)
    assert told.command == "tritontune run models --budget 90s"
    assert told.budget_s == 90
    assert (told.gpus, told.cpus) == (("NVIDIA H100",), 2)
    assert told.packages["optuna"] == version("optuna")
    assert told.tritontune == version("tritontune")
    assert "Linux" in told.system
    assert told.memory_bytes
    assert told.memory_bytes > 1 << 20


def test_what_cannot_be_known_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_release() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", no_release)
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "gone")
    monkeypatch.setattr(versions, "_PACKAGES", ("there-is-no-such-package",))
    told = provenance(JOB, Machine(cpus=None, gpus=(), processor=""))
    assert (told.processor, told.packages) == ("", {})
    assert told.system.startswith("Linux ")
