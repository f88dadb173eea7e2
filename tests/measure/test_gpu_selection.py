from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf import text_format
from support.nvml import StandInGpu, StandInLibrary, installed, mig_instance
from tritonclient.grpc import model_config_pb2

from tuner.core import nvml
from tuner.core.nvml import Gpu
from tuner.measure.gpu_selection import gpus_in_use, may_use_gpus, requires_gpus, visible_gpus


@pytest.fixture
def gpus() -> Iterator[tuple[Gpu, ...]]:
    """Two plain GPUs, one that is cut, and one that is to be cut and is not yet."""
    library = StandInLibrary(
        StandInGpu("GPU-aaaa-1"),
        StandInGpu("GPU-aabb-2"),
        StandInGpu("GPU-cccc-3", mig=[None, mig_instance(1), mig_instance(2)]),
        StandInGpu("GPU-dddd-4", mig=[]),
    )
    with installed(library), nvml.opened():
        yield nvml.all_gpus()


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ("all", ["GPU 0", "GPU 1", "GPU 2:1"]),
        ("none", []),
        ("", []),
        ("-1", []),
        ("1", ["GPU 1"]),
        ("1, 0", ["GPU 1", "GPU 0"]),
        ("GPU-aabb", ["GPU 1"]),
        ("GPU-aaaa-1,2", ["GPU 0", "GPU 2:1"]),
        ("2:2", ["GPU 2:2"]),
        ("2:0", []),
        ("MIG-2aaaaaaa-0000", ["GPU 2:2"]),
        ("MIG-1,MIG-2", ["GPU 2:1", "GPU 2:2"]),
        ("GPU-cccc", ["GPU 2:1"]),
        ("3", []),
        # As CUDA does: the list ends at what means nothing, and a beginning of several names means nothing.
        ("0,9,1", ["GPU 0"]),
        ("GPU-aa", []),
        ("1,zero", ["GPU 1"]),
    ],
)
def test_what_a_selection_shows(gpus: tuple[Gpu, ...], selection: str, names: list[str]) -> None:
    assert [str(gpu).split(" (")[0] for gpu in visible_gpus(selection, gpus)] == names


def config(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    ("groups", "indices"),
    [
        ("instance_group { kind: KIND_CPU count: 4 }", []),
        ("instance_group { kind: KIND_GPU gpus: [ 1 ] }", [0]),
        ("instance_group { kind: KIND_GPU gpus: [ 0 ] } instance_group { kind: KIND_GPU gpus: [ 1 ] }", [1, 0]),
        ("instance_group { kind: KIND_GPU gpus: [ 0, 1 ] } instance_group { kind: KIND_CPU }", [1, 0]),
        ("instance_group { kind: KIND_GPU }", [1, 0]),
        ("instance_group { kind: KIND_GPU gpus: [ 5 ] }", []),
        ("instance_group { kind: KIND_MODEL }", [1, 0]),
        ("instance_group { kind: KIND_MODEL gpus: [ 0 ] }", [1]),
        ("ensemble_scheduling { }", [1, 0]),
        ("", []),
    ],
)
def test_which_of_them_a_model_uses(gpus: tuple[Gpu, ...], groups: str, indices: list[int]) -> None:
    # The places that `gpus` names are those of what the server sees.
    assert [gpu.index for gpu in gpus_in_use(config(groups), visible_gpus("1,0", gpus))] == indices


@pytest.mark.parametrize(
    ("text", "surely", "perhaps"),
    [
        ("instance_group { kind: KIND_GPU }", True, True),
        ("instance_group { kind: KIND_CPU }", False, False),
        ("instance_group { kind: KIND_CPU } instance_group { kind: KIND_GPU }", True, True),
        ("instance_group { kind: KIND_MODEL }", False, True),
        ("instance_group { count: 2 }", False, True),
        ('backend: "onnxruntime"', False, True),
        ('backend: "python"', False, False),
    ],
)
def test_whether_it_uses_any(text: str, *, surely: bool, perhaps: bool) -> None:
    assert (requires_gpus(config(text)), may_use_gpus(config(text))) == (surely, perhaps)
