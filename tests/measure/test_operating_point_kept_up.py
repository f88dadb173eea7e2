from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support.builders import interval
from support.closed_loop import Batcher, samples_of
from support.open_loop import run_open

from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate
from tuner.core.record import Interval
from tuner.load.protocols import Samples
from tuner.measure.operating_point import kept_up
from tuner.stats.rates import throughput
from tuner.stats.window import steady_window, whole_window

RUNS = 40
CAPACITIES = {
    "quick": (Batcher(1.0, spread=0.3, largest=1), 1_000.0),
    "slow": (Batcher(10.0, spread=0.3, largest=1), 100.0),
    "batches": (Batcher(5.0, item_ms=0.3, largest=32), 32 / 14.6 * 1e3),
}


def verdict(load: Load, rate: Interval, growth_ms_per_s: float = 0.0, *, waiting: int = 0) -> bool | None:
    """Of one second of 200 requests due, whose latency grows in proportion to the time."""
    due_ms = [5.0 * number for number in range(200)]
    samples = samples_of(due_ms, [due + 10 + due / 1e3 * growth_ms_per_s for due in due_ms], 1.1)
    return kept_up(rate, replace(samples, waiting=waiting), whole_window(samples), load)


def verdicts(batcher: Batcher, per_s: float, wall_s: float = 3.0) -> float:
    """The share of runs in which a server was found to keep up."""
    rng = np.random.default_rng(0)
    load = RequestRate(per_s)

    def verdict_of(samples: Samples) -> bool | None:
        window = steady_window(samples, load)
        return kept_up(throughput(window), samples, window, load)

    return sum(verdict_of(run_open(batcher, load, wall_s, rng)) is True for _ in range(RUNS)) / RUNS


def test_a_closed_loop_has_nothing_to_keep_up_with() -> None:
    assert verdict(Concurrency(4), interval(10)) is None


@pytest.mark.parametrize(
    ("value", "share", "kept"),
    [(200, 0.01, True), (191, 0.01, True), (188, 0.01, False), (180, 0.12, True), (150, 0.9, False)],
)
def test_a_rate_nearly_or_perhaps_as_high_as_offered_keeps_up(value: float, share: float, *, kept: bool) -> None:
    assert verdict(RequestRate(200), interval(value, share)) is kept


def test_latency_that_grows_does_not() -> None:
    assert verdict(RequestRate(200), interval(200), growth_ms_per_s=5) is True
    assert verdict(RequestRate(200), interval(200), growth_ms_per_s=30) is False


def test_a_queue_before_the_connections_does_not_but_for_the_few_that_are_just_due() -> None:
    assert verdict(RequestRate(200), interval(200), waiting=10) is True
    assert verdict(RequestRate(200), interval(200), waiting=11) is False


def test_a_ramp_offers_its_mean() -> None:
    assert verdict(Ramp(100, 300, 1), interval(200), growth_ms_per_s=30) is True
    assert verdict(Ramp(100, 500, 1), interval(200)) is False


def test_a_recording_offers_what_was_due() -> None:
    assert verdict(Replay("day", (0,), period_ns=1_000), interval(200)) is True
    assert verdict(Replay("day", (0,), period_ns=1_000), interval(150)) is False


def test_a_recording_of_one_request_offers_no_more_than_that() -> None:
    samples = samples_of([0], [50], 0.05)
    window = whole_window(samples)
    assert kept_up(throughput(window), samples, window, Replay("one", (0,))) is True


def share_of_capacity(name: str) -> Callable[[float], float]:
    batcher, capacity = CAPACITIES[name]
    return lambda share: verdicts(batcher, share * capacity)


@pytest.mark.slow
@pytest.mark.parametrize("name", CAPACITIES)
def test_servers_with_room_are_found_to_keep_up_and_those_without_are_not(name: str) -> None:
    kept = share_of_capacity(name)
    assert kept(0.5) > 0.9
    assert kept(0.8) > 0.8
    assert kept(1.1) < 0.1
    assert kept(1.5) == 0
