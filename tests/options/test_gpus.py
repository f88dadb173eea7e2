from __future__ import annotations

from typing import Any

import pytest

from tuner.core.errors import JobError
from tuner.core.nvml import Gpu
from tuner.options.gpus import (
    gpus_of_runtime,
    parse_gpus,
    process_environment,
    shown_by_cuda,
)

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
    with pytest.raises(ValueError, match="is not a GPU; write all, none, or|is given twice"):
        parse_gpus(value)


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


@pytest.mark.parametrize(
    ("given", "cuda", "seen"),
    [
        ("all", None, "all"),
        ("all", "1", "1"),
        ("all", "1,0", "1,0"),
        ("all", "GPU-bb22", "GPU-bb22"),
        ("all", "", "none"),
        ("all", "-1", "-1"),
        # To CUDA, `all` is no name.
        ("all", "all", "none"),
        ("none", "0", "none"),
        ("2,5", None, "2,5"),
        # It counts from 0 among what the container has, in the order of the bus.
        ("5,2", "0", "2"),
        ("2,5", "1,0", "5,2"),
        ("2,5", "0,7,1", "2"),
        ("2,5", "-1", "none"),
        ("GPU-aa11", "GPU-aa", "GPU-aa11"),
    ],
)
def test_what_a_server_sees_of_what_it_is_given(given: str, cuda: str | None, seen: str) -> None:
    assert shown_by_cuda(given, {} if cuda is None else {"CUDA_VISIBLE_DEVICES": cuda}) == seen


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "1"}, "1"),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-aa11"}, "GPU-aa11"),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, "all"),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, "none"),
        ({"NVIDIA_VISIBLE_DEVICES": ""}, "none"),
    ],
)
def test_what_a_container_asks_nvidias_runtime_for(variables: dict[str, str], asked: str | None) -> None:
    assert gpus_of_runtime(variables) == asked


def test_a_container_cannot_ask_for_what_is_no_gpu() -> None:
    with pytest.raises(JobError, match=r"^--env NVIDIA_VISIBLE_DEVICES: 'nvidia.com/gpu=0' is not a GPU"):
        gpus_of_runtime({"NVIDIA_VISIBLE_DEVICES": "nvidia.com/gpu=0"})
