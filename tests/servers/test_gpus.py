from __future__ import annotations

from typing import Any

import pytest

from tuner.errors import JobError
from tuner.nvml import Gpu
from tuner.servers.gpus import device_requests, gpus_flag, parse_gpus, process_environment

HERE = [Gpu(0, "GPU-aa11", "first GPU", 1), Gpu(1, "GPU-bb22", "second GPU", 1)]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("all", "all"),
        ("None", "none"),
        (0, "0"),
        ("1, 0", "1,0"),
        ([0, 1], "0,1"),
        ("GPU-5f2a,MIG-7c1e-22", "GPU-5f2a,MIG-7c1e-22"),
        ("MIG-GPU-5f2a/1/0", "MIG-GPU-5f2a/1/0"),
    ],
)
def test_reads_what_people_write(value: Any, read: str) -> None:
    assert parse_gpus(value) == read


@pytest.mark.parametrize("value", ["", "some", "0,all", "-1", "0;1", "GPU", [True], "0,0"])
def test_refuses_anything_else(value: Any) -> None:
    with pytest.raises(ValueError, match="is no GPU; write all, none, or|is named twice"):
        parse_gpus(value)


def test_as_docker_takes_them() -> None:
    assert device_requests(None) == device_requests("none") == []
    (every,) = device_requests("all")
    assert (every["Count"], every["Capabilities"]) == (-1, [["gpu"]])
    (some,) = device_requests("0,MIG-7c1e")
    assert (some["DeviceIDs"], some["Count"]) == (["0", "MIG-7c1e"], 0)
    assert gpus_flag("0,MIG-7c1e") == ['--gpus="device=0,MIG-7c1e"']


def test_as_a_process_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert process_environment(None, HERE) == {}
    assert process_environment("all", HERE) == {}
    assert process_environment("none", []) == {"CUDA_VISIBLE_DEVICES": ""}
    # Numbers are those of nvidia-smi.
    by_bus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert process_environment("1", HERE) == {"CUDA_VISIBLE_DEVICES": "1", **by_bus}
    assert process_environment("GPU-bb22,0", HERE) == {"CUDA_VISIBLE_DEVICES": "GPU-bb22,0", **by_bus}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert process_environment("all", HERE) == {"CUDA_VISIBLE_DEVICES": "0,1", **by_bus}


@pytest.mark.parametrize("gpus", ["2", "GPU-cc"])
def test_names_those_that_there_are(gpus: str) -> None:
    with pytest.raises(JobError) as caught:
        process_environment(gpus, HERE)
    assert str(caught.value) == (
        f"--gpus: this machine has no GPU {gpus}; it has 0 (first GPU, GPU-aa11), 1 (second GPU, GPU-bb22)"
    )
