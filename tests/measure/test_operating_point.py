from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.builders import interval, point
from support.closed_loop import samples_of

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.load.protocols import Responses, Samples
from tuner.measure.meter import Meter
from tuner.measure.operating_point import operating_point
from tuner.measure.points import OperatingPoint
from tuner.measure.sampling import Sample, Sampling
from tuner.stats.histogram import Histogram
from tuner.stats.latencies import percentiles
from tuner.stats.window import Window

CLOSED = Concurrency(1)


def samples(*failed: int) -> Samples:
    """100 requests one after the other, of 10 ms each; some failed, and those have no answer to speak of."""
    made = samples_of([10.0 * number for number in range(100)], [10.0 * number + 10 for number in range(100)], 1.0)
    ok = ~np.isin(np.arange(100), failed)
    errors = {"INTERNAL: no": len(failed)} if failed else {}
    return replace(made, ok=ok, errors=errors, received=np.where(ok, 600, 0).astype(np.uint32))


def made_of(seen: Samples, load: Load = CLOSED, *, warm_up: int = 20, batch_size: int = 1) -> OperatingPoint:
    """A point of all but the first requests, at 80 requests a second."""
    later = np.arange(len(seen)) >= warm_up
    done_ns = seen.done_ns[later & seen.ok]
    window = Window(int(seen.done_ns[warm_up - 1]), done_ns, np.full(len(done_ns), 10.0))
    return operating_point(seen, window, load, requests_per_s=interval(80), batch_size=batch_size)


def test_it_is_of_what_ended_within_the_window() -> None:
    found = made_of(samples())
    assert (found.load, found.requests, found.errors) == (CLOSED, 80, 0)
    assert found.window_s == pytest.approx(0.8)
    assert found.histogram == Histogram.of(np.full(80, 10.0))
    assert found.latency_ms == percentiles(Window(0, np.arange(80) * 10_000_000, np.full(80, 10.0)))


def test_throughput_is_in_inferences_and_bytes_are_of_requests() -> None:
    found = made_of(samples(), batch_size=8)
    assert (found.batch_size, found.throughput) == (8, interval(80).times(8))
    assert found.received_bytes_per_s == 80 * 600


def test_failures_count_from_the_windows_start_on_and_are_no_part_of_the_mean_answer() -> None:
    found = made_of(samples(5, 19, 20, 50, 98, 99))
    assert (found.requests, found.errors, found.error) == (76, 4, "INTERNAL: no")
    assert found.received_bytes_per_s == 80 * 600


def test_an_error_of_the_warm_up_is_not_told() -> None:
    found = made_of(samples(5))
    assert (found.errors, found.error) == (0, None)


def test_what_only_an_open_loop_has() -> None:
    closed, open_ = made_of(samples()), made_of(samples(), RequestRate(80))
    assert (closed.kept_up, closed.client.send_lag_ms) == (None, None)
    assert (open_.kept_up, open_.client.send_lag_ms) == (True, {"p50": 0, "p99": 0})
    assert made_of(samples(), RequestRate(100)).kept_up is False


def test_what_only_a_stream_has() -> None:
    assert made_of(samples()).responses is None
    seen = samples()
    streamed = replace(seen, responses=Responses(seen.done_ns, np.full(100, 3, np.int32), np.full(200, 5, np.uint32)))
    found = made_of(streamed, batch_size=8)
    assert found.responses is not None
    assert (found.responses.per_request, found.responses.per_s) == (3, 240)


def test_the_servers_view_is_passed_on() -> None:
    server, seen = point().server, samples()
    window = Window(0, seen.done_ns, np.full(100, 10.0))
    assert operating_point(seen, window, CLOSED, requests_per_s=interval(80), server=server).server == server
    assert made_of(seen).server is None


def metered(costs: list[float], load: Load) -> OperatingPoint:
    """A point of a second, in which a turn cost so many microseconds at even moments."""
    speed: Sampling[float] = Sampling(lambda: None)
    speed._samples += [Sample(round(1e9 * n / (len(costs) - 1)), cost) for n, cost in enumerate(costs)]
    seen = samples()
    window = Window(0, seen.done_ns, np.full(100, 10.0))
    return operating_point(seen, window, load, requests_per_s=interval(100), meter=Meter(speed=speed))


def test_intervals_are_wider_where_the_machine_itself_is_now_slow_and_now_quick() -> None:
    steady, unsteady = [0.01] * 24, ([0.01] * 6 + [0.02] * 6) * 2
    before, after = metered(steady, CLOSED), metered(unsteady, CLOSED)
    assert before.throughput == interval(100)
    assert after.throughput.value == before.throughput.value
    assert after.throughput.high > 1.5 * before.throughput.value
    assert after.latency_ms["p99"].high > 1.5 * before.latency_ms["p99"].high
    assert after.machine_speed is not None
    assert after.machine_speed.wander > 0.3


def test_the_throughput_of_an_open_loop_is_what_is_offered() -> None:
    found = metered(([0.01] * 6 + [0.02] * 6) * 2, RequestRate(100))
    assert found.throughput == interval(100)
    assert found.latency_ms["p99"].high > 15
