from __future__ import annotations

from dataclasses import replace

import numpy as np
import pynvml
import pytest
from support.builders import judged, point
from support.closed_loop import Batcher, run
from support.nvml import StandInGpu, StandInLibrary, installed
from support.open_loop import run_open
from support.simulated_engine import SimulatedEngine
from tritonclient.grpc import service_pb2

from tuner.core import nvml
from tuner.core.loads import Concurrency, Load, Replay, RequestRate
from tuner.load.protocols import Samples
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.level import measure_level
from tuner.measure.machine_load import MachineLoad
from tuner.measure.machine_speed import MachineSpeed
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_checks import warnings_about
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.rules import LevelRules
from tuner.measure.server_resources import ServerResources
from tuner.measure.server_statistics import Read, Reads
from tuner.stats.window import steady_window

SEEN = ServerResources(cpu_cores=1.0, memory_bytes=1)


def reasons(found: OperatingPoint) -> dict[QualityCheck, str]:
    return {warning.check: warning.reason for warning in found.warnings}


def about(samples: Samples, load: Load, reads: Reads | None = None) -> dict[QualityCheck, str]:
    warnings = warnings_about(samples, steady_window(samples, load), load, reads)
    return {warning.check: warning.reason for warning in warnings}


def test_a_sound_point_is_not_doubted() -> None:
    assert point().warnings == ()


def test_failures() -> None:
    assert reasons(point(2, errors=5)) == {
        QualityCheck.FAILURES: "5 of 505 requests failed, most often with UNAVAILABLE: gone"
    }


def test_cache_hits() -> None:
    server = point().server
    assert server is not None
    cached = judged(point(), server=server.model_copy(update={"requests": 1_500, "cache_hits": 1_200}))
    assert reasons(cached) == {
        QualityCheck.CACHE_HITS: "the response cache, not the model, answered 1,200 of 1,500 requests"
    }


def test_a_client_that_is_the_limit() -> None:
    assert reasons(judged(point(), client=ClientView(cpu=0.9, bound="it is busy"))) == {
        QualityCheck.CLIENT_BOUND: "client-bound: it is busy"
    }
    assert reasons(judged(point(), client=ClientView(cpu=0.03, bound="it is late"))) == {
        QualityCheck.CLIENT_BOUND: "it is late"
    }


def throttled(bits: int) -> OperatingPoint:
    """A point on a GPU whose driver gives these reasons."""
    with installed(StandInLibrary(StandInGpu(reasons=bits))), nvml.opened():
        (gpu,) = nvml.all_gpus()
        told = gpu.read().throttle_reasons
    assert told is not None
    view = GpuView(gpu=str(gpu), uuid=gpu.uuid, throttle_reasons=tuple(sorted(told)))
    return judged(point(), gpu=GpuUsage(gpus=(view,)))


@pytest.mark.parametrize(
    ("bits", "named"),
    [
        (pynvml.nvmlClocksEventReasonHwSlowdown, "hw_slowdown"),
        (pynvml.nvmlClocksEventReasonHwThermalSlowdown, "hw_thermal_slowdown"),
        (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, "hw_power_brake_slowdown"),
        (
            pynvml.nvmlClocksEventReasonSwThermalSlowdown | pynvml.nvmlClocksEventReasonSwPowerCap,
            "sw_thermal_slowdown",
        ),
    ],
)
def test_a_gpu_that_is_throttled(bits: int, named: str) -> None:
    assert reasons(throttled(bits)) == {
        QualityCheck.GPU_THROTTLED: f"GPU 0 (NVIDIA H100 80GB HBM3) was throttled: {named}"
    }


@pytest.mark.parametrize(
    "bits",
    [
        0,
        pynvml.nvmlClocksEventReasonGpuIdle,
        pynvml.nvmlClocksEventReasonSwPowerCap,
        pynvml.nvmlClocksEventReasonApplicationsClocksSetting,
    ],
)
def test_what_a_gpu_has_to_live_with_is_no_doubt(bits: int) -> None:
    assert throttled(bits).warnings == ()


def machine(elsewhere: float | None, *, idle: float = 1.0, stolen: float = 0.0) -> MachineLoad:
    return MachineLoad(cores=4, idle_cores=idle, elsewhere_cores=elsewhere, stolen_cores=stolen)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (machine(0.3), None),
        (machine(1.21), "load from elsewhere: other processes used 1.2 of this machine's 4 cores"),
        (machine(0.1, stolen=0.2), None),
        (
            machine(0.1, stolen=0.5),
            "load from elsewhere: other processes used 0.1 and the hypervisor withheld 0.5 of this machine's 4 cores",
        ),
        (machine(0.0, stolen=0.5), "load from elsewhere: the hypervisor withheld 0.5 of this machine's 4 cores"),
    ],
)
def test_load_from_elsewhere_matters_from_a_tenth_of_all_cores_on(load: MachineLoad, reason: str | None) -> None:
    assert reasons(judged(point(), machine=load, server_resources=SEEN)).get(QualityCheck.MACHINE_LOAD) == reason


def test_clocks_that_move_in_ticks_are_not_believed_over_a_short_time() -> None:
    for window_s, warned in ((0.1, False), (10.0, True)):
        found = judged(point(), machine=machine(0.5), server_resources=SEEN, window_s=window_s)
        assert bool(found.warnings) is warned


def test_beside_a_server_that_is_elsewhere_only_a_client_that_starves_matters() -> None:
    assert judged(point(), machine=machine(2.0)).warnings == ()
    assert judged(point(), machine=machine(None, idle=0.0)).warnings == ()
    assert QualityCheck.MACHINE_LOAD in reasons(judged(point(), machine=machine(3.5, idle=0.1)))
    assert QualityCheck.MACHINE_LOAD in reasons(judged(point(), machine=machine(None, stolen=1.0)))


@pytest.mark.parametrize(
    ("wander", "reason"),
    [
        (0.14, None),
        (
            0.21,
            "load from elsewhere: this machine's speed varied by 21% (standard deviation)",
        ),
    ],
)
def test_a_machine_that_is_hardly_the_same_from_second_to_second(wander: float, reason: str | None) -> None:
    found = judged(point(), machine_speed=MachineSpeed(turns_per_us=100, wander=wander))
    assert reasons(found).get(QualityCheck.MACHINE_LOAD) == reason


@pytest.mark.parametrize("concurrency", [1, 8, 64])
@pytest.mark.parametrize(
    "batcher",
    [
        Batcher(5.0, item_ms=0.3),
        Batcher(10.0, largest=1, spread=0.3),
        Batcher(40.0, largest=4, spread=1.0),
        # The client's part is more than 5 %, and no more than its CPU share says.
        Batcher(0.1, client_ms=0.008),
    ],
)
def test_sound_measurements_pass(batcher: Batcher, concurrency: int) -> None:
    for seed in range(5):
        engine = SimulatedEngine(batcher, np.random.default_rng(seed))
        rules = LevelRules(max_s=1.0)
        found = measure_level(engine, Concurrency(concurrency), statistics=None, health=lambda: None, rules=rules)
        assert found.warnings == ()


def test_open_loops_pass_too() -> None:
    for seed in range(5):
        assert not about(run_open(Batcher(3.0), load := RequestRate(200), 2.0, np.random.default_rng(seed)), load)


def test_requests_that_are_never_answered_break_littles_law() -> None:
    samples = run(Batcher(10.0, largest=4), 7, 2.0, np.random.default_rng(0))
    reason = about(samples, Concurrency(8))[QualityCheck.LITTLES_LAW]
    assert reason.startswith("Little's law: concurrency is 8, but throughput x mean latency is 6.")
    assert not about(samples, Concurrency(7))


def test_failures_take_their_part_in_littles_law() -> None:
    samples = run(Batcher(10.0), 4, 2.0, np.random.default_rng(0))
    failing = replace(samples, ok=np.arange(len(samples)) % 100 != 50)
    assert not about(failing, Concurrency(4))


def test_of_few_long_requests_littles_law_says_less() -> None:
    """One in a hundred takes 30 times as long, and the window holds few of them."""
    rng = np.random.default_rng(0)
    latency_ms = np.where(rng.random(400) < 0.01, 300.0, 10.0)
    done_ms = np.cumsum(latency_ms)
    one = Samples(
        sent_ns=((done_ms - latency_ms) * 1e6).astype(np.int64),
        done_ns=(done_ms * 1e6).astype(np.int64),
        ok=np.ones(400, np.bool_),
        errors={},
        cpu_s=0.1,
        wall_s=float(done_ms[-1]) / 1e3,
    )
    # Another client's only request of that time is under way still.
    assert QualityCheck.LITTLES_LAW not in about(one, Concurrency(1))
    assert QualityCheck.LITTLES_LAW in about(one, Concurrency(2))


def reads_of(samples: Samples, counted: int) -> Reads:
    """The server's count of requests between a third and the end of the load."""

    def read(count: int, at: int) -> Read:
        success = service_pb2.StatisticDuration(count=count)
        statistics = service_pb2.ModelStatistics(inference_stats=service_pb2.InferStatistics(success=success))
        at_ns = int(samples.done_ns[at]) + 1
        return Read(statistics, at_ns, at_ns + 1)

    return Reads(read(1_000, len(samples) // 3), read(1_000 + counted, -1))


@pytest.mark.parametrize(("share", "why"), [(1.2, "another client uses the model"), (0.5, "another server answered")])
@pytest.mark.parametrize("load", [Concurrency(8), RequestRate(500)])
def test_the_server_and_the_client_count_alike(load: Load, share: float, why: str) -> None:
    batcher, rng = Batcher(5.0), np.random.default_rng(0)
    samples = run(batcher, 8, 2.0, rng) if isinstance(load, Concurrency) else run_open(batcher, load, 2.0, rng)
    own = len(samples) - len(samples) // 3 - 1
    for off in (-5, 0, 5):
        assert QualityCheck.REQUEST_COUNT not in about(samples, load, reads_of(samples, own + off))
    reason = about(samples, load, reads_of(samples, round(own * share)))[QualityCheck.REQUEST_COUNT]
    assert reason.startswith(f"the server counted {round(own * share):,} requests, this client {own:,}: {why}")


def test_requests_of_the_load_before_are_not_blamed_on_another_client() -> None:
    samples, load = run_open(Batcher(5.0), RequestRate(500), 2.0, np.random.default_rng(0)), RequestRate(500)
    window, reads = steady_window(samples, load), reads_of(samples, 2 * len(samples))
    (warning,) = warnings_about(samples, window, load, reads, behind=True)
    assert warning.check is QualityCheck.REQUEST_COUNT
    assert warning.reason.endswith(": the server still answered requests of the previous load")


def test_the_count_of_a_model_that_answers_in_steps_says_nothing() -> None:
    load = Concurrency(8)
    samples = run(Batcher(5.0), 8, 2.0, np.random.default_rng(0))
    window, reads = steady_window(samples, load), reads_of(samples, 3 * len(samples))
    assert QualityCheck.REQUEST_COUNT in {warning.check for warning in warnings_about(samples, window, load, reads)}
    steps = warnings_about(samples, window, load, reads, in_steps=True)
    assert QualityCheck.REQUEST_COUNT not in {warning.check for warning in steps}


def test_a_model_that_was_loaded_anew_counts_from_0() -> None:
    samples = run(Batcher(5.0), 8, 2.0, np.random.default_rng(0))
    assert QualityCheck.REQUEST_COUNT not in about(samples, Concurrency(8), reads_of(samples, -900))


def test_requests_that_were_given_up_are_answered_all_the_same() -> None:
    samples = run(Batcher(5.0), 8, 2.0, np.random.default_rng(0))
    given_up = replace(samples, ok=np.arange(len(samples)) % 4 != 0)
    own = len(samples) - len(samples) // 3 - 1
    assert QualityCheck.REQUEST_COUNT not in about(given_up, Concurrency(8), reads_of(samples, own))


@pytest.mark.parametrize(("factor", "slower"), [(0.3, True), (5.0, False)])
def test_a_server_that_drifts(factor: float, slower: bool) -> None:  # noqa: FBT001 (a parameter)
    """Ever slower, or after a cold start of five seconds ever quicker."""
    engine = SimulatedEngine(Batcher(10.0, warm_up=factor, warm_up_ms=5_000), np.random.default_rng(0))
    found = measure_level(engine, Concurrency(4), statistics=None, health=lambda: None, rules=LevelRules(max_s=3.0))
    reason = reasons(found)[QualityCheck.DRIFT]
    first, second = (float(word) for word in reason.split() if word[0].isdigit())
    assert (second > 1.05 * first) is slower
    assert (
        reason == f"drift: mean latency was {first:g} ms in the first half of the window, {second:g} ms in the second"
    )


def test_a_rate_that_is_served_ever_more_slowly_drifts() -> None:
    growing = Batcher(10.0, warm_up=0.2, warm_up_ms=3_000)
    samples = run_open(growing, load := RequestRate(50), 2.0, np.random.default_rng(0))
    assert QualityCheck.DRIFT in about(samples, load)
    # A recording has its own ups and downs.
    assert QualityCheck.DRIFT not in about(samples, Replay("day", tuple(samples.sent_ns.tolist())))
