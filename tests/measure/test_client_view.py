from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.closed_loop import samples_of

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.load.protocols import Samples
from tuner.measure.client_view import ClientView, client_view
from tuner.stats.window import whole_window

RATE = RequestRate(100)


def samples(lag_us: int = 0, *, late: int = 200, latency_ms: float = 5.0, **changes: float) -> Samples:
    """200 requests in 2 s, of which the last ones were sent late."""
    sent_ms = [10.0 * number for number in range(200)]
    made = samples_of(sent_ms, [sent + latency_ms for sent in sent_ms], 2.0)
    lags = np.where(np.arange(200) >= 200 - late, lag_us, 0).astype(np.int32)
    return replace(made, lag_us=lags, **changes)  # type: ignore[arg-type]  # the parts have the types of their names


def view(seen: Samples, load: Load = RATE) -> ClientView:
    return client_view(seen, whole_window(seen), load)


def test_cpu_is_the_share_of_a_core_that_each_process_took() -> None:
    assert view(samples(cpu_s=0.5)).cpu == pytest.approx(0.25)
    shared = view(samples(cpu_s=2.4, processes=2))
    assert shared.cpu == pytest.approx(0.6)
    assert (shared.processes, shared.bound) == (2, None)


def test_above_70_percent_of_a_core_the_client_is_the_limit() -> None:
    assert view(samples(cpu_s=1.4), Concurrency(4)).bound is None
    assert view(samples(cpu_s=1.5), Concurrency(4)).bound == "the load generator took 75% of a core"
    assert view(samples(cpu_s=3.6, processes=2)).bound == "the load generator took 90% of a core in each of 2 processes"


def test_the_send_lag_is_that_of_an_open_loop() -> None:
    lags = view(samples(400, late=20)).send_lag_ms
    assert lags == {"p50": 0, "p99": pytest.approx(0.4)}
    assert view(samples(), Concurrency(4)).send_lag_ms is None


@pytest.mark.parametrize(
    ("lag_us", "latency_ms", "bound"),
    [(900, 5, False), (1_100, 5, True), (1_100, 50, False), (6_000, 50, True)],
)
def test_sent_late_is_more_than_1_ms_and_10_percent_of_the_latency(
    lag_us: int, latency_ms: float, *, bound: bool
) -> None:
    assert (view(samples(lag_us, latency_ms=latency_ms)).bound is not None) is bound


def test_it_says_how_late() -> None:
    late = "p99 of the send lag was 1,230 ms"
    own, others = view(samples(1_230_000, cpu_s=1.2)), view(samples(1_230_000, cpu_s=0.1))
    assert (own.bound, own.held_up) == (late, False)
    assert (others.bound, others.held_up) == (f"{late}; other processes kept the machine busy", True)


def test_lateness_beyond_the_percentile_that_decides_is_nothing() -> None:
    seen = samples(50_000, late=20, cpu_s=1.2)
    bounds = [client_view(seen, whole_window(seen), RATE, percentile).bound for percentile in ("p50", "p95")]
    assert bounds == [None, "p95 of the send lag was 50 ms"]


def test_one_late_request_in_1000_is_nothing() -> None:
    assert view(samples(50_000, late=1)).bound is None


def test_requests_that_waited_for_full_connections_are_not_the_clients_doing() -> None:
    assert view(samples(12_300, waiting=3)).bound is None
    assert view(samples(12_300, waiting=3, cpu_s=1.9)).bound is not None
