from __future__ import annotations

import pickle
from collections.abc import Iterator

import pynvml
import pytest
from support.nvml import GIB, StandInGpu, StandInLibrary, installed, mig_instance

from tuner.core import nvml
from tuner.core.nvml import Gpu, GpuProcess, NoNvmlError


@pytest.fixture
def stand_in() -> StandInGpu:
    return StandInGpu(
        reasons=pynvml.nvmlClocksEventReasonGpuIdle
        | pynvml.nvmlClocksEventReasonSwPowerCap
        | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    )


@pytest.fixture
def library(stand_in: StandInGpu) -> Iterator[StandInLibrary]:
    with installed(StandInLibrary(stand_in)) as library:
        yield library


def test_a_gpu_tells_everything(library: StandInLibrary) -> None:
    with nvml.opened():
        (gpu,) = nvml.all_gpus()
        reading = gpu.read()
    assert (str(gpu), gpu.memory_bytes) == ("GPU 0 (NVIDIA H100 80GB HBM3)", 80 * GIB)
    # As nvidia-smi counts: without what the driver keeps for itself.
    assert reading.memory_bytes == 2 * GIB
    assert (reading.utilization_percent, reading.power_w, reading.temperature_c) == (73, 350, 61)
    assert reading.energy_j == pytest.approx(10**9, rel=1e-3)
    assert (reading.sm_clock_mhz, reading.memory_clock_mhz) == (1755, 2619)
    assert reading.throttle_reasons == frozenset({"sw_power_cap", "hw_thermal_slowdown"})
    assert not library.opened


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "utilization_percent"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_j"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetClockInfo", "sm_clock_mhz"),
    ],
)
@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_GPU_IS_LOST]
)
@pytest.mark.usefixtures("library")
def test_what_a_gpu_does_not_tell_is_none(stand_in: StandInGpu, call: str, field: str, code: int) -> None:
    stand_in.refusals[call] = code
    with nvml.opened():
        reading = nvml.all_gpus()[0].read()
    assert getattr(reading, field) is None
    assert reading.memory_bytes == 2 * GIB


def test_a_chip_without_memory_of_its_own() -> None:
    refusals = dict.fromkeys(["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"], pynvml.NVML_ERROR_NOT_SUPPORTED)
    with installed(StandInLibrary(StandInGpu(refusals=refusals))), nvml.opened():
        (gpu,) = nvml.all_gpus()
        assert (gpu.memory_bytes, gpu.memory_in_use(), gpu.read().memory_bytes) == (None, None, None)


def test_a_driver_of_another_age() -> None:
    missing = frozenset(
        {
            "nvmlDeviceGetMemoryInfo_v2",
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetMigMode",
        }
    )
    gpu = StandInGpu(reasons=pynvml.nvmlClocksEventReasonSyncBoost, processes=[(7, None)])
    with installed(StandInLibrary(gpu, missing=missing)), nvml.opened():
        (found,) = nvml.all_gpus()
        reading = found.read()
        assert (found.processes(), found.mig_instances()) == ((), None)
    # It tells the driver's own share and the rest as one.
    assert reading.memory_bytes == 2.5 * GIB
    assert reading.throttle_reasons == frozenset({"sync_boost"})


@pytest.mark.usefixtures("library")
def test_who_computes_on_it(stand_in: StandInGpu) -> None:
    stand_in.processes = [(12, 3 * GIB), (34, None)]
    with nvml.opened():
        (gpu,) = nvml.all_gpus()
        assert gpu.processes() == (GpuProcess(12, "program12", 3 * GIB), GpuProcess(34, "program34", None))
        stand_in.processes = []
        assert gpu.processes() == ()


def test_mig_instances_tell_what_is_their_own() -> None:
    board = StandInGpu(mig=[mig_instance(1, used=GIB), None, mig_instance(2, used=3 * GIB)])
    with installed(StandInLibrary(StandInGpu("GPU-bbbb"), board)), nvml.opened():
        plain, cut = nvml.all_gpus()
        assert plain.mig_instances() is None
        instances: tuple[Gpu, ...] = cut.mig_instances() or ()
        readings = [instance.read() for instance in instances]
        assert instances[0].mig_instances() is None
    assert [(str(each), each.uuid, each.memory_bytes) for each in instances] == [
        ("GPU 1:0 (NVIDIA H100 80GB HBM3 MIG 1g.10gb)", "MIG-1aaaaaaa-0000", 10 * GIB),
        ("GPU 1:2 (NVIDIA H100 80GB HBM3 MIG 1g.10gb)", "MIG-2aaaaaaa-0000", 10 * GIB),
    ]
    assert [reading.memory_bytes for reading in readings] == [GIB, 3 * GIB]
    # Nobody knows whose power it is; and one chip has one clock.
    assert {(each.utilization_percent, each.power_w, each.energy_j) for each in readings} == {(None, None, None)}
    assert {(each.temperature_c, each.sm_clock_mhz) for each in readings} == {(61, 1755)}


def test_a_gpu_that_is_kept_from_us_is_left_out() -> None:
    kept = StandInGpu("GPU-bbbb", refusals={"nvmlDeviceGetHandleByIndex_v2": pynvml.NVML_ERROR_NO_PERMISSION})
    with installed(StandInLibrary(kept, StandInGpu())), nvml.opened():
        assert [gpu.index for gpu in nvml.all_gpus()] == [1]
    with (
        installed(StandInLibrary(kept)),
        nvml.opened(),
        pytest.raises(NoNvmlError, match=r"no permission to use NVML \(Insufficient Permissions\)"),
    ):
        nvml.all_gpus()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "NVML error: Driver Not Loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, r"no permission to use NVML"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "NVML error: RM has detected an NVML/RM version mismatch"),
    ],
)
def test_why_it_cannot_be_asked(code: int, reason: str) -> None:
    with installed(StandInLibrary(init=code)), pytest.raises(NoNvmlError, match=reason), nvml.opened():
        pass


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_name: str) -> None:
        raise OSError

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", no_library)
    with pytest.raises(NoNvmlError, match="no NVIDIA driver"), nvml.opened():
        pass


def test_it_is_open_as_long_as_anybody_needs_it(library: StandInLibrary) -> None:
    with nvml.opened():
        with nvml.opened():
            pass
        assert nvml.all_gpus()[0].read().temperature_c == 61
    assert library.opened == 0


def test_the_cores_near_a_gpu() -> None:
    instance = mig_instance(1)
    with (
        installed(StandInLibrary(StandInGpu(cores=(0, 63, 64, 130)), StandInGpu(mig=[instance], cores=(5,)))),
        nvml.opened(),
    ):
        first, second = nvml.all_gpus()
        assert first.nearest_cores() == {0, 63, 64, 130}
        assert [part.nearest_cores() for part in second.mig_instances() or ()] == [{5}]


def test_a_driver_that_does_not_tell_the_cores_near_a_gpu() -> None:
    refused = StandInGpu(refusals={"nvmlDeviceGetCpuAffinity": pynvml.NVML_ERROR_NOT_SUPPORTED})
    with installed(StandInLibrary(refused)), nvml.opened():
        assert nvml.all_gpus()[0].nearest_cores() == frozenset()


def test_a_gpu_travels_without_its_handles() -> None:
    with installed(StandInLibrary(StandInGpu(mig=[mig_instance(1)]))), nvml.opened():
        (gpu,) = nvml.all_gpus()
        (instance,) = gpu.mig_instances() or ()
        copies = pickle.loads(pickle.dumps((gpu, instance)))  # noqa: S301 (our own)
        assert copies == (gpu, instance)
