from __future__ import annotations

from collections.abc import Callable

import pynvml
import pytest
from google.protobuf import text_format
from support.nvml import GIB, StandInGpu, StandInLibrary, installed
from tritonclient.grpc import model_config_pb2

from tuner.measure.gpu import NO_GPUS, Gpus

Notes = list[str]


def config(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


ON_GPU = config("instance_group { kind: KIND_GPU }")
ON_CPU = config("instance_group { kind: KIND_CPU }")


def _noting() -> tuple[Notes, Callable[[str], None]]:
    notes: Notes = []
    return notes, notes.append


def _use(gpus: Gpus, effective: model_config_pb2.ModelConfig) -> None:
    with gpus.watch() as watch:
        watch.use(effective)


@pytest.mark.parametrize(
    ("library", "selection", "reason"),
    [
        (StandInLibrary(init=pynvml.NVML_ERROR_DRIVER_NOT_LOADED), "all", "NVML error: Driver Not Loaded"),
        (
            StandInLibrary(init=pynvml.NVML_ERROR_NO_PERMISSION),
            "all",
            "no permission to use NVML (Insufficient Permissions)",
        ),
        (StandInLibrary(), "all", "the server sees none of this machine's GPUs (all)"),
        (StandInLibrary(StandInGpu()), "none", "the server sees none of this machine's GPUs (none)"),
        (StandInLibrary(StandInGpu()), None, "the server was not started here, so its GPUs are unknown"),
    ],
)
def test_why_there_are_no_figures_is_said_once_and_only_where_there_should_be(
    library: StandInLibrary, selection: str | None, reason: str
) -> None:
    notes, note = _noting()
    with installed(library), Gpus(selection, note) as gpus:
        assert gpus.problem == reason
        gpus.warn_if_busy(ON_GPU)
        _use(gpus, ON_CPU)
        assert notes == []
        _use(gpus, ON_GPU)
        _use(gpus, ON_GPU)
    assert notes == [f"no GPU figures: {reason}"]


def test_busy_gpus_are_noted_in_one_line_and_once() -> None:
    busy = StandInGpu(processes=[(7, 12 * GIB)])
    crowded = StandInGpu("GPU-bbbb", "NVIDIA L4", processes=[(pid, None) for pid in range(1, 6)])
    notes, note = _noting()
    with installed(StandInLibrary(busy, StandInGpu("GPU-cccc"), crowded)), Gpus("all", note) as gpus:
        gpus.warn_if_busy(ON_CPU)
        gpus.warn_if_busy(config("instance_group { kind: KIND_GPU gpus: [ 1 ] }"))
        assert notes == []
        gpus.warn_if_busy(ON_GPU)
        gpus.warn_if_busy(config('backend: "onnxruntime"'))
    (line,) = notes
    assert line == (
        "other processes use the GPU, so results may include their load: GPU 0 (NVIDIA H100 80GB HBM3): program7 7 with"
        " 12 GiB; GPU 2 (NVIDIA L4): program1 1, program2 2, program3 3, 2 more"
    )


def test_one_that_the_server_does_not_see_is_not_its_business() -> None:
    notes, note = _noting()
    busy = StandInGpu(processes=[(7, None)])
    with installed(StandInLibrary(busy, StandInGpu("GPU-bbbb"))), Gpus("1", note) as gpus:
        assert gpus.problem is None
        gpus.warn_if_busy(ON_GPU)
        _use(gpus, ON_GPU)
    assert notes == []


def test_nvml_is_closed_after_an_error_too() -> None:
    library = StandInLibrary(StandInGpu(refusals={"nvmlDeviceGetHandleByIndex_v2": pynvml.NVML_ERROR_NO_PERMISSION}))
    with installed(library), Gpus("all", lambda _: None) as gpus:
        assert library.opened == 0
        assert gpus.problem == "no permission to use NVML (Insufficient Permissions)"


def test_where_no_gpu_is_asked_nothing_is_said() -> None:
    _use(NO_GPUS, ON_GPU)
    assert NO_GPUS.problem is None
