"""Levels of open loops, against servers whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.closed_loop import Batcher
from support.simulated_engine import SimulatedEngine
from tritonclient.grpc import service_pb2

from tuner.core.errors import TuningError
from tuner.core.loads import Load, Ramp, Replay, RequestRate
from tuner.measure.level import measure_level, measure_ramp
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.server_statistics import ReadStatistics

RULES = LevelRules(max_s=3.0)
SIX_SECONDS = LevelRules(min_s=6.0, max_s=6.0)


def nothing() -> None:
    """A server in good health."""


def simulated(
    batcher: Batcher, load: Load, rules: LevelRules = RULES, statistics: ReadStatistics | None = None
) -> tuple[OperatingPoint, float]:
    """The point, and how many seconds it took."""
    engine = SimulatedEngine(batcher, np.random.default_rng(0))
    point = measure_level(engine, load, statistics=statistics, health=nothing, rules=rules)
    return point, engine.wall_s


def every_ms(gap: int, count: int, period_ms: int | None = None) -> Replay:
    """A recording of requests at equal distance."""
    return Replay(
        "steps", tuple(number * gap * 1_000_000 for number in range(count)), period_ms and period_ms * 1_000_000
    )


def test_a_point_says_what_came_of_the_rate() -> None:
    point, _ = simulated(Batcher(1.0, spread=0.3, largest=1), RequestRate(400))
    assert point.load == RequestRate(400)
    assert point.throughput.low < 400 < point.throughput.high
    assert point.latency_ms["p50"].low < 1.2 < point.latency_ms["p50"].high
    assert point.kept_up is True
    assert point.client.send_lag_ms == {"p50": 0, "p99": 0}


def test_it_ends_when_the_percentile_is_known_as_the_rate_is_known_before() -> None:
    rules = replace(RULES, throughput_precision=0.001, latency_precision=1)
    _, wall_s = simulated(Batcher(1.0, largest=1), RequestRate(400), rules)
    assert wall_s == pytest.approx(RULES.min_s, rel=0.05)


def test_a_stall_is_in_the_latency_of_all_that_was_due_meanwhile() -> None:
    stalling = Batcher(0.5, spread=0.3, largest=1, stop_ms=(2_500, 3_500))
    point, _ = simulated(stalling, RequestRate(500), SIX_SECONDS)
    assert point.latency_ms["p99"].value > 300
    assert point.latency_ms["p50"].value < 2
    # It has caught up since.
    assert point.kept_up is True


def test_a_stop_at_the_end_is_waited_for() -> None:
    rules = replace(RULES, latency_precision=0.001)
    point, wall_s = simulated(Batcher(0.5, largest=1, stop_ms=(2_800, 4_500)), RequestRate(500), rules)
    assert wall_s >= 4.5
    assert point.latency_ms["p99"].value > 1_000


@pytest.mark.parametrize("overload", [1.2, 2.0, 20.0])
def test_a_server_that_cannot_keep_up_is_told_so_and_takes_no_longer_than_allowed(overload: float) -> None:
    point, wall_s = simulated(Batcher(4.0, spread=0.3, largest=1), RequestRate(250 * overload))
    assert point.kept_up is False
    assert wall_s == pytest.approx(RULES.max_s, rel=0.02)
    assert point.throughput.value == pytest.approx(250, rel=0.06)
    # What was answered last had waited for all of what the server lags behind.
    assert point.latency_ms["p99"].value > 900 * RULES.max_s * (1 - 1 / overload)


def test_few_requests_a_second_get_more_time() -> None:
    point, wall_s = simulated(Batcher(20.0, largest=1), RequestRate(2))
    assert RULES.max_s < wall_s < RULES.slow_max_s + 5
    assert point.requests >= 15
    assert point.kept_up is True


def test_few_requests_a_second_get_no_more_time_than_who_has_enough_of_them_gives() -> None:
    point, wall_s = simulated(Batcher(20.0, largest=1), RequestRate(2), replace(RULES, slow_requests=2))
    assert wall_s == pytest.approx(RULES.max_s, rel=0.05)
    assert point.requests >= 2


def test_a_recording_is_measured_to_its_end_and_no_longer() -> None:
    reads: list[int] = []

    def statistics() -> service_pb2.ModelStatistics:
        reads.append(len(reads))
        return service_pb2.ModelStatistics(inference_count=100 * len(reads), execution_count=50 * len(reads))

    point, wall_s = simulated(Batcher(2.0, spread=0.01), every_ms(20, 500), statistics=statistics)
    assert point.requests == 500
    assert wall_s == pytest.approx(499 * 0.020 + 0.002, abs=0.001)
    assert point.throughput.value == pytest.approx(50, rel=0.01)
    assert point.kept_up is True
    assert point.server is not None
    assert point.server.inferences == 100 * (len(reads) - 1)


def test_a_recording_that_begins_anew_is_measured_once_as_a_whole() -> None:
    _, wall_s = simulated(Batcher(2.0, spread=0.01), every_ms(20, 200, 4_000))
    assert wall_s == pytest.approx(4.0, rel=0.02)


def test_a_recording_too_fast_for_the_server_is_not_kept_up_with() -> None:
    point, _ = simulated(Batcher(4.0, largest=1), every_ms(2, 1_000))
    assert point.requests == 1_000
    assert point.throughput.value == pytest.approx(250, rel=0.02)
    assert point.kept_up is False


def test_the_shortest_recording_is_measured() -> None:
    point, _ = simulated(Batcher(2.0), Replay("one", (0,)))
    assert (point.requests, point.server) == (1, None)


def test_a_load_without_a_request_is_refused() -> None:
    with pytest.raises(TuningError, match="no request was due"):
        simulated(Batcher(2.0), Ramp(0.0, 0.001, 1.0))


def test_a_ramp_gives_a_point_a_slice() -> None:
    engine = SimulatedEngine(Batcher(1.0, largest=1), np.random.default_rng(0))
    points = measure_ramp(engine, Ramp(100, 500, 4), health=nothing, rules=RULES, slices=4, batch_size=2)
    assert [point.load for point in points] == [RequestRate(rate) for rate in (150, 250, 350, 450)]
    assert all(point.kept_up for point in points)
    assert all(point.throughput.low <= 2 * point.load.level <= point.throughput.high for point in points)
