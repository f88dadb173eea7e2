from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from support.closed_loop import Batcher
from support.inference_peer import InferencePeer, request_for
from support.simulated_engine import SimulatedEngine
from tritonclient.grpc import service_pb2

from tuner.core.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.core.loads import Concurrency
from tuner.core.slo import SLO
from tuner.load.engine import WorkerEngine
from tuner.load.workload import Plan, Request, Workload
from tuner.measure.level import Deadline, LevelCutError, measure_level
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.options.endpoint import Endpoint

RULES = LevelRules(max_s=3.0)
QUICK = LevelRules(min_s=0.2, max_s=0.5, first_look_s=0.05, request_timeout_s=0.5)


def nothing() -> None:
    """A server in good health."""


def simulated(
    batcher: Batcher, concurrency: int = 1, rules: LevelRules = RULES, health: Callable[[], None] = nothing
) -> tuple[OperatingPoint, float]:
    """The point, and how many seconds it took."""
    engine = SimulatedEngine(batcher, np.random.default_rng(0))
    point = measure_level(engine, Concurrency(concurrency), statistics=None, health=health, rules=rules)
    return point, engine.wall_s


def test_a_point_says_what_was_measured() -> None:
    point, wall_s = simulated(Batcher(5.0, item_ms=0.3), 16)
    assert point.load == Concurrency(16)
    assert point.throughput.low < 1_078 < point.throughput.high
    assert point.latency_ms["p50"].low < 14.9 < point.latency_ms["p50"].high
    assert list(point.latency_ms) == ["p50", "p90", "p95", "p99"]
    assert point.requests == pytest.approx(point.throughput.value * point.window_s, rel=0.01)
    assert wall_s / 2 < point.window_s < wall_s
    assert point.client.cpu == pytest.approx(0.1)
    assert point.received_bytes_per_s == pytest.approx(100 * point.throughput.value)
    assert point.histogram.count == point.requests
    assert (point.kept_up, point.client.send_lag_ms, point.client_bound, point.responses) == (None, None, False, None)
    assert (point.errors, point.error, point.server) == (0, None, None)


@pytest.mark.parametrize("at_s", [1.0, 2.0])
def test_a_deadline_ends_a_level_that_has_told_enough(at_s: float) -> None:
    unsteady, engine = Batcher(10.0, spread=0.8), SimulatedEngine(Batcher(10.0, spread=0.8), np.random.default_rng(0))
    _, alone_s = simulated(unsteady)
    deadline = Deadline(at_s, now=lambda: engine.wall_s)
    point = measure_level(engine, Concurrency(1), statistics=None, health=nothing, rules=RULES, deadline=deadline)
    assert alone_s > 2.5
    # It is looked at twice a second or more.
    assert at_s <= engine.wall_s <= at_s + 0.5
    assert point.requests >= RULES.min_requests
    assert point.window_s < at_s + 0.5


def test_what_a_deadline_leaves_of_a_slow_level_is_no_point() -> None:
    engine = SimulatedEngine(Batcher(900.0), np.random.default_rng(0))
    deadline = Deadline(4.0, now=lambda: engine.wall_s)
    with pytest.raises(LevelCutError):
        measure_level(engine, Concurrency(1), statistics=None, health=nothing, rules=RULES, deadline=deadline)
    assert engine.wall_s <= 4.5


def test_a_steady_server_is_known_soon() -> None:
    _, wall_s = simulated(Batcher(5.0, spread=0.01))
    assert wall_s == pytest.approx(RULES.min_s, rel=0.05)


def test_an_unsteady_server_takes_longer_and_no_longer_than_allowed() -> None:
    point, wall_s = simulated(Batcher(10.0, spread=0.8))
    assert wall_s == pytest.approx(RULES.max_s, rel=0.02)
    assert point.throughput.relative_half_width > RULES.throughput_precision


def test_it_ends_only_when_both_throughput_and_the_percentile_are_known() -> None:
    noisy = Batcher(3.0, spread=0.2)
    _, either_s = simulated(noisy, rules=replace(RULES, throughput_precision=1, latency_precision=1))
    throughput, _ = simulated(noisy, rules=replace(RULES, throughput_precision=0.02, latency_precision=1))
    latency, _ = simulated(noisy, rules=replace(RULES, throughput_precision=1, latency_precision=0.06))
    assert either_s == pytest.approx(RULES.min_s, rel=0.05)
    assert throughput.throughput.relative_half_width <= 0.02
    assert latency.latency_ms["p99"].relative_half_width <= 0.06


def test_the_percentile_that_counts_is_the_one_of_the_rules() -> None:
    rules = replace(RULES, throughput_precision=1, latency_precision=0.05)
    _, median_s = simulated(Batcher(3.0, spread=0.2), rules=replace(rules, slo=SLO({"p50": 1e6})))
    _, tail_s = simulated(Batcher(3.0, spread=0.2), rules=rules)
    assert median_s < tail_s


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_slow_model_gets_more_time(concurrency: int) -> None:
    slow, wall_s = simulated(Batcher(800.0, spread=0.3, largest=1), concurrency)
    assert RULES.max_s < wall_s <= RULES.slow_max_s
    assert slow.requests >= 12
    assert slow.throughput.low < 1.25 < slow.throughput.high


def test_who_needs_few_requests_does_not_wait_for_more() -> None:
    few = replace(RULES, slow_requests=2)
    point, wall_s = simulated(Batcher(800.0, largest=1), 8, few)
    assert wall_s == pytest.approx(RULES.max_s, rel=0.02)
    assert point.requests >= 2
    point, wall_s = simulated(Batcher(4_000.0), rules=few)
    assert RULES.max_s < wall_s < 10
    assert point.requests == 2


def test_a_very_slow_model_does_not_get_all_the_time_in_the_world() -> None:
    very_slow, wall_s = simulated(Batcher(9_000.0, spread=0.1))
    assert wall_s < RULES.slow_max_s + 10
    assert very_slow.requests >= 2
    assert very_slow.throughput.low < 1 / 9 < very_slow.throughput.high


def test_a_stop_is_part_of_the_numbers_although_the_time_was_up() -> None:
    stopping = Batcher(10.0, spread=0.6, stop_ms=(2_500, 4_500))
    point, wall_s = simulated(stopping)
    assert wall_s >= 4.5
    assert 40 < point.throughput.value < 70
    assert point.throughput.high > 80


def test_a_server_that_stops_for_good_hangs() -> None:
    with pytest.raises(ServerHungError, match="no request was answered for 5 s at concurrency 4"):
        simulated(Batcher(10.0, stop_ms=(300, np.inf)), 4, replace(RULES, request_timeout_s=5))


def test_one_request_in_100_that_is_50_times_as_slow_is_in_the_percentile_and_in_its_doubt() -> None:
    point, wall_s = simulated(Batcher(3.0, largest=1, slow=0.01, slow_factor=50.0))
    assert wall_s == pytest.approx(RULES.max_s, rel=0.02)
    p90, p99 = point.latency_ms["p90"], point.latency_ms["p99"]
    assert p90.high < 5
    assert p99.low < 10
    assert p99.high > 100
    assert p99.relative_half_width > RULES.latency_precision


def test_a_cold_start_of_five_seconds_is_no_part_of_the_numbers_where_there_is_time() -> None:
    cold = Batcher(5.0, largest=1, warm_up=4.0, warm_up_ms=5_000)
    point, wall_s = simulated(cold, 1, LevelRules())
    assert wall_s > 5
    assert point.throughput.value == pytest.approx(1e3 / 5.2, rel=0.05)
    assert point.latency_ms["p99"].value < 8


def test_health_is_looked_at_twice_a_second() -> None:
    looks: list[None] = []
    _, wall_s = simulated(Batcher(700.0), health=lambda: looks.append(None))
    assert len(looks) >= 2 * wall_s - 1


def test_a_server_that_dies_ends_it() -> None:
    def health() -> None:
        raise ServerDiedError("gone", cause=Cause.CRASHED)

    with pytest.raises(ServerDiedError, match="gone"):
        simulated(Batcher(5.0), health=health)


def test_the_servers_own_view_is_that_between_the_first_and_the_last_look() -> None:
    reads: list[service_pb2.ModelStatistics] = []

    def statistics() -> service_pb2.ModelStatistics:
        number = len(reads)
        reads.append(service_pb2.ModelStatistics(inference_count=100 + 60 * number, execution_count=50 + 20 * number))
        return reads[-1]

    engine = SimulatedEngine(Batcher(10.0, spread=0.5), np.random.default_rng(0))
    point = measure_level(engine, Concurrency(1), statistics=statistics, health=nothing, rules=RULES)
    assert len(reads) == 2
    assert point.server is not None
    assert (point.server.inferences, point.average_batch_size) == (60, 3)


def test_throughput_is_in_inferences() -> None:
    single, _ = simulated(Batcher(5.0))
    engine = SimulatedEngine(Batcher(5.0), np.random.default_rng(0))
    point = measure_level(engine, Concurrency(1), statistics=None, health=nothing, rules=RULES, batch_size=8)
    assert point.batch_size == 8
    assert point.throughput == single.throughput.times(8)
    assert (point.requests, point.latency_ms) == (single.requests, single.latency_ms)
    assert point.received_bytes_per_s == single.received_bytes_per_s


@pytest.fixture
def server() -> Iterator[InferencePeer]:
    with InferencePeer() as server:
        yield server


def measured(server: InferencePeer, model: str, concurrency: int = 4, *, rules: LevelRules = QUICK) -> OperatingPoint:
    """A level of real requests."""
    workload = Workload(model, ((Request(request_for(model)),),))
    plan = Plan("wire", Endpoint(server.address), workload, rules.request_timeout_s)
    with WorkerEngine(plan) as engine:
        return measure_level(engine, Concurrency(concurrency), statistics=None, health=nothing, rules=rules)


def test_real_requests_are_measured(server: InferencePeer) -> None:
    point = measured(server, "sleep")
    assert point.latency_ms["p50"].value > 10
    # Four at once that take 10 ms each, or more.
    assert 0 < point.throughput.value < 500
    assert 0 < point.client.cpu < 1
    assert point.received_bytes_per_s > 0


def test_failures_beside_successes_are_counted_in_the_point(server: InferencePeer) -> None:
    point = measured(server, "flaky", rules=replace(QUICK, request_timeout_s=60))
    assert point.error == "INTERNAL: the model says no"
    assert 0.2 < point.errors / (point.errors + point.requests) < 0.45


def test_a_model_that_fails_is_an_error_with_its_own_words(server: InferencePeer) -> None:
    with pytest.raises(ServerError, match="at concurrency 4: INTERNAL: the model says no") as raised:
        measured(server, "fail", rules=replace(QUICK, request_timeout_s=60))
    assert raised.value.cause is Cause.REQUESTS_FAILED


def test_a_model_that_does_not_answer_hangs(server: InferencePeer) -> None:
    with pytest.raises(ServerHungError, match="no request was answered for 0.5 s at concurrency 4"):
        measured(server, "hang")
