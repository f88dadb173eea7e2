from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import pynvml
import pytest
from google.protobuf import text_format
from support.nvml import GIB, StandInGpu, StandInLibrary, installed, mig_instance
from tritonclient.grpc import model_config_pb2

from tuner.core import nvml
from tuner.core.nvml import GpuReading
from tuner.measure.gpu_selection import visible_gpus
from tuner.measure.gpu_view import GpuUsage
from tuner.measure.gpu_watch import GpuWatch, _power_by_energy_w
from tuner.measure.sampling import Sample


def groups(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


BOTH = groups("instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }")
SECOND = groups("instance_group { kind: KIND_GPU gpus: [ 1 ] }")


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def first() -> StandInGpu:
    return StandInGpu(used=GIB)


@pytest.fixture
def second() -> StandInGpu:
    return StandInGpu("GPU-bbbb", used=4 * GIB, power_w=200, clocks=(1000, 2000), temperature=70)


@pytest.fixture
def watch(first: StandInGpu, second: StandInGpu) -> Iterator[GpuWatch]:
    """On both, just before a server is launched."""
    with installed(StandInLibrary(first, second)), nvml.opened(), GpuWatch(nvml.all_gpus()) as watch:
        yield watch


def view_of(watch: GpuWatch, seconds: float, inferences: int = 100) -> GpuUsage:
    """The usage over the next seconds; see `usage_over`."""
    return usage_over(watch, seconds, inferences)[0]


def usage_over(watch: GpuWatch, seconds: float, inferences: int) -> tuple[GpuUsage, float]:
    """The usage from now on, and over how many seconds: three samples may take longer on a busy machine."""
    start_ns = time.monotonic_ns()
    end_ns = start_ns + round(seconds * 1e9)

    def later_ns() -> list[int]:
        return [sample.at_ns for sample in watch._sampling.samples if sample.at_ns >= start_ns]

    await_that(lambda: len(later_ns()) > 3 and later_ns()[-1] > end_ns)
    end_ns = max(end_ns, later_ns()[2])
    usage = watch.view(start_ns, end_ns, inferences)
    assert usage is not None
    return usage, (end_ns - start_ns) / 1e9


def test_a_window_has_figures_of_each_gpu_in_use(watch: GpuWatch, first: StandInGpu) -> None:
    watch.use(BOTH)
    first.reasons = pynvml.nvmlClocksEventReasonSwPowerCap
    usage, seconds = usage_over(watch, 0.6, inferences=100)
    one, two = usage.gpus
    assert (one.gpu, one.uuid) == ("GPU 0 (NVIDIA H100 80GB HBM3)", first.uuid)
    assert (one.utilization_percent, one.temperature_c, one.sm_clock_mhz, one.memory_clock_mhz) == (73, 61, 1755, 2619)
    assert one.throttle_reasons == ("sw_power_cap",)
    assert two.throttle_reasons == ()
    assert one.power_w
    assert two.power_w
    assert usage.power_w
    # A busy machine reads the counter late.
    assert one.power_w == pytest.approx(350, rel=0.5)
    assert two.power_w == pytest.approx(200, rel=0.5)
    assert one.energy_j == pytest.approx(one.power_w * seconds)
    assert usage.power_w == pytest.approx(one.power_w + two.power_w)
    assert usage.energy_per_inference_j == pytest.approx(usage.power_w * seconds / 100)
    assert (usage.temperature_c, usage.sm_clock_mhz, usage.throttle_reasons) == (70, 1000, ("sw_power_cap",))


def test_power_is_the_slope_of_a_counter_that_is_updated_now_and_then() -> None:
    times_s = [0.03 * number for number in range(100)]
    samples = [Sample(round(time_s * 1e9), GpuReading(energy_j=35.0 * math.floor(10 * time_s))) for time_s in times_s]
    assert _power_by_energy_w(samples) == pytest.approx(350, rel=0.02)
    assert _power_by_energy_w(samples[:1]) is None
    assert _power_by_energy_w(samples[::-1]) == pytest.approx(350, rel=0.02)
    restarted = [Sample(sample.at_ns, GpuReading(energy_j=-350.0 * sample.at_ns / 1e9)) for sample in samples]
    assert _power_by_energy_w(restarted) is None


def test_without_a_counter_of_energy_power_is_added_up(watch: GpuWatch, first: StandInGpu, second: StandInGpu) -> None:
    first.refusals = second.refusals = {"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_NOT_SUPPORTED}
    watch.use(BOTH)
    usage, seconds = usage_over(watch, 0.4, inferences=1000)
    assert usage.energy_per_inference_j == pytest.approx(550 * seconds / 1000)


def test_without_either_nobody_knows(watch: GpuWatch, first: StandInGpu) -> None:
    calls = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    first.refusals = dict.fromkeys(calls, pynvml.NVML_ERROR_NOT_SUPPORTED)
    watch.use(BOTH)
    usage = view_of(watch, 0.6)
    assert (usage.power_w, usage.energy_per_inference_j, usage.gpus[0].energy_j) == (None, None, None)
    assert usage.gpus[1].power_w == pytest.approx(200, rel=0.2)


def test_peaks_are_of_the_window_and_of_the_launch(watch: GpuWatch, first: StandInGpu) -> None:
    watch.use(BOTH)
    first.used = 9 * GIB
    await_that(lambda: (watch.memory is not None) and watch.memory.peak_bytes == 8 * GIB)
    first.used = 6 * GIB
    (one, two) = view_of(watch, 0.3).gpus
    assert (one.memory_bytes, one.run_memory_bytes, one.idle_memory_bytes) == (6 * GIB, 9 * GIB, GIB)
    assert (one.taken_bytes, two.taken_bytes) == (8 * GIB, 0)
    memory = watch.memory
    assert memory is not None
    assert (memory.gpu, memory.peak_bytes, memory.capacity_bytes) == (one.gpu, 8 * GIB, 79 * GIB)


def test_a_gpu_that_is_not_in_use_is_not_asked_any_more(watch: GpuWatch, first: StandInGpu, second: StandInGpu) -> None:
    watch.use(SECOND)
    first.used = 70 * GIB
    second.used = 5 * GIB
    usage = view_of(watch, 0.3)
    assert [view.uuid for view in usage.gpus] == [second.uuid]
    memory = watch.memory
    assert memory is not None
    assert memory.peak_bytes == GIB


def test_a_model_on_the_cpu_has_no_figures(watch: GpuWatch) -> None:
    assert watch.memory is None
    watch.use(groups("instance_group { kind: KIND_CPU }"))
    assert watch.view(0, time.monotonic_ns(), 10) is None
    assert watch.memory is None


def test_of_a_mig_instance_only_its_own_counts() -> None:
    board = StandInGpu(mig=[mig_instance(1, used=2 * GIB)])
    with installed(StandInLibrary(board)), nvml.opened(), GpuWatch(visible_gpus("all", nvml.all_gpus())) as watch:
        watch.use(groups("instance_group { kind: KIND_GPU gpus: [ 0 ] }"))
        (view,) = view_of(watch, 0.3).gpus
    assert (view.uuid, view.memory_bytes, view.total_memory_bytes) == ("MIG-1aaaaaaa-0000", 2 * GIB, 10 * GIB)
    assert (view.utilization_percent, view.power_w, view.energy_j) == (None, None, None)
    assert (view.temperature_c, view.sm_clock_mhz) == (61, 1755)


def test_without_any_gpu_it_says_nothing() -> None:
    with GpuWatch(()) as watch:
        watch.use(BOTH)
        assert watch.view(0, 1, 1) is None
        assert watch.memory is None
