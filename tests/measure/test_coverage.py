"""How often the intervals hold the truth, over many simulated measurements of servers whose truth is known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from scipy import stats
from support.closed_loop import Batcher, run
from support.open_loop import run_open
from support.simulated_engine import SimulatedEngine

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.record import Interval
from tuner.core.slo import Percentile
from tuner.load.protocols import Samples
from tuner.measure.level import measure_level
from tuner.measure.rules import LevelRules
from tuner.stats.latencies import percentiles
from tuner.stats.rates import throughput
from tuner.stats.window import steady_window

pytestmark = pytest.mark.slow

RUNS = pytest.mark.parametrize("runs", [40, pytest.param(120, marks=pytest.mark.statistics)])
SERVERS: dict[str, tuple[Batcher, Load]] = {
    "one at a time": (Batcher(3.0, spread=0.2, largest=1), Concurrency(1)),
    "a queue": (Batcher(2.0, spread=0.3, largest=1), Concurrency(8)),
    "batches": (Batcher(5.0, item_ms=0.3), Concurrency(16)),
}
OPEN_SERVERS: dict[str, tuple[Batcher, Load]] = {
    "at ease": (Batcher(1.0, spread=0.3, largest=1), RequestRate(400)),
    "busy": (Batcher(2.0, spread=0.3, largest=1), RequestRate(350)),
    "batches": (Batcher(5.0, item_ms=0.3), RequestRate(1_000)),
    "constant": (Batcher(2.0, spread=0.5, largest=1), RequestRate(350, "constant")),
}

Found = dict[str, Interval]


def found_in(rate: Interval, latency_ms: Mapping[Percentile, Interval]) -> Found:
    return {"throughput": rate, **{str(name): interval for name, interval in latency_ms.items()}}


def found_by(measure: Callable[[np.random.Generator], Found], runs: int) -> list[Found]:
    rng = np.random.default_rng(1)
    return [measure(rng) for _ in range(runs)]


def at_least(share: float, runs: int) -> float:
    """What intervals that hold the truth with this probability show in so many runs, but for one case in 1,000."""
    return float(stats.binom.ppf(0.001, runs, share)) / runs


def samples_of(batcher: Batcher, load: Load, wall_s: float, rng: np.random.Generator) -> Samples:
    if isinstance(load, Concurrency):
        return run(batcher, load.requests, wall_s, rng)
    return run_open(batcher, load, wall_s, rng)


@functools.cache
def truth(batcher: Batcher, load: Load) -> dict[str, float]:
    window = steady_window(samples_of(batcher, load, 150, np.random.default_rng(0)), load)
    return {
        "throughput": load.per_s if isinstance(load, RequestRate) else len(window) / window.length_s,
        **{f"p{share}": float(np.percentile(window.latency_ms, share)) for share in (50, 90, 99)},
    }


def coverage(found: list[Found], true: dict[str, float]) -> dict[str, float]:
    return {
        name: float(np.mean([measured[name].low <= value <= measured[name].high for measured in found]))
        for name, value in true.items()
    }


@RUNS
@pytest.mark.parametrize("name", SERVERS)
def test_intervals_of_a_second_hold_the_truth(name: str, runs: int) -> None:
    batcher, load = SERVERS[name]

    def measure(rng: np.random.Generator) -> Found:
        window = steady_window(samples_of(batcher, load, 1.0, rng), load)
        return found_in(throughput(window), percentiles(window))

    true = truth(batcher, load)
    found = found_by(measure, runs)
    assert min(coverage(found, true).values()) >= at_least(0.95, runs)
    # Neither by being so wide that they say nothing, nor by luck.
    for part, widest in (("throughput", 0.04), ("p50", 0.05), ("p90", 0.08), ("p99", 0.15)):
        assert np.median([measured[part].relative_half_width for measured in found]) < widest
        assert abs(np.mean([measured[part].value for measured in found]) / true[part] - 1) < 0.02


@RUNS
@pytest.mark.parametrize("name", SERVERS)
def test_intervals_hold_the_truth_although_the_level_ended_as_soon_as_they_were_narrow(name: str, runs: int) -> None:
    batcher, load = SERVERS[name]
    walls_s: list[float] = []

    def measure(rng: np.random.Generator) -> Found:
        engine = SimulatedEngine(batcher, rng)
        point = measure_level(engine, load, statistics=None, health=lambda: None, rules=LevelRules())
        walls_s.append(engine.wall_s)
        return found_in(point.throughput, point.latency_ms)

    found = found_by(measure, runs)
    assert min(coverage(found, truth(batcher, load)).values()) >= at_least(0.94, runs)
    assert 0.4 <= np.median(walls_s) < 2.5
    assert max(walls_s) <= 10.1


@RUNS
@pytest.mark.parametrize("name", OPEN_SERVERS)
def test_intervals_of_an_open_loop_hold_the_truth(name: str, runs: int) -> None:
    batcher, load = OPEN_SERVERS[name]

    def measure(rng: np.random.Generator) -> Found:
        window = steady_window(samples_of(batcher, load, 2.0, rng), load)
        return found_in(throughput(window), percentiles(window))

    true = truth(batcher, load)
    found = found_by(measure, runs)
    covered = coverage(found, true)
    assert min(covered["throughput"], covered["p50"]) >= at_least(0.98, runs)
    # The slowest of a busy queue come in rows, of which 2 s see very few.
    assert min(covered["p90"], covered["p99"]) >= at_least(0.86, runs)
    for part, widest in (("throughput", 0.1), ("p50", 0.25), ("p90", 0.35), ("p99", 0.5)):
        assert np.median([measured[part].relative_half_width for measured in found]) < widest
        assert abs(np.mean([measured[part].value for measured in found]) / true[part] - 1) < 0.08
