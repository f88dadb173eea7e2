from __future__ import annotations

import math

import numpy as np
import pytest
from support.builders import point, trial

from tuner.core.errors import Cause
from tuner.core.loads import Concurrency
from tuner.core.slo import NO_LIMIT, SLO
from tuner.recommend.shortlist import ShortlistEntry, shortlist

LIMIT = SLO.parse(["p99=25ms"])
TRIALS = [
    trial(0, point(1, 100, 10)),
    trial(1, point(8, 300, 20), point(16, 400, 30)),
    trial(2, point(8, 350, 20)),
    trial(3, point(8, 900, 20), failure=Cause.CRASHED),
    trial(4, point(8, 900, 90)),
]


def entry(*points: tuple[int, float, float], slo: SLO = LIMIT) -> ShortlistEntry:
    """An entry of a curve that is not smoothed: load, throughput, p99 in ms."""
    return ShortlistEntry(trial(1), tuple(point(*each) for each in points), slo)


CURVE = entry((4, 200, 10), (8, 300, 20), (16, 400, 40))


def test_each_trial_that_may_be_deployed_within_the_slo_is_on_it() -> None:
    assert [each.trial.number for each in shortlist(TRIALS, LIMIT)] == [0, 1, 2]
    assert [each.trial.number for each in shortlist(TRIALS, NO_LIMIT)] == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("load", "throughput"),
    [(8, 300), (math.sqrt(8 * 16), math.sqrt(300 * 400)), (2, 100), (32, 400)],
)
def test_between_loads_throughput_follows_the_curve_and_below_it_the_load(load: float, throughput: float) -> None:
    assert math.exp(CURVE.merit(load)) == pytest.approx(throughput)


@pytest.mark.parametrize(("load", "latency_ms"), [(8, 20), (math.sqrt(8 * 16), 20 * math.sqrt(2)), (2, 10), (32, 80)])
def test_beyond_the_curve_latency_grows_with_the_load(load: float, latency_ms: float) -> None:
    assert 25 * math.exp(CURVE.latency(load)) == pytest.approx(latency_ms)


def test_the_latency_nearest_to_its_limit_counts() -> None:
    several = entry((8, 300, 20), slo=SLO({"p50": 11.0, "p99": 25.0}))
    # The p50 is half of p99: 10 of 11 ms.
    assert several.latency(8) == pytest.approx(math.log(10 / 11))
    assert several.excess(point(8, 300, 24)) == pytest.approx(math.log(12 / 11))
    assert entry((8, 300, 20), slo=NO_LIMIT).latency(8) == -math.inf


def test_a_percentile_over_many_launches_is_that_of_their_mixture() -> None:
    """Of log-normal latencies, whose median differs from launch to launch."""
    rng, spread = np.random.default_rng(0), 0.2
    tail = math.log(2) / 2.3263  # the p99 is twice the p50
    mixed = np.exp(tail * rng.standard_normal(400_000) + spread * rng.standard_normal(400_000)) * 10
    assert 25 * math.exp(CURVE.latency(8, spread)) == pytest.approx(float(np.quantile(mixed, 0.99)), rel=0.01)


@pytest.mark.parametrize(
    ("slower", "below", "load"),
    [
        (0.0, math.inf, 10),  # 25 ms are reached between 8 and 16
        (math.log(24 / 20), math.inf, 8),
        (0.0, 8, 7),
        (math.log(3), math.inf, 1),  # no load holds the SLO
        (0.0, 1, None),
    ],
)
def test_the_best_load_gives_most_within_the_slo(slower: float, below: float, load: int | None) -> None:
    assert CURVE.best_load(slower, below=below) == (None if load is None else Concurrency(load))


@pytest.mark.parametrize(("margin", "load"), [(math.log(1.2), 8), (math.log(3), 4)])
def test_a_margin_is_kept_where_a_load_has_it(margin: float, load: int) -> None:
    # At 10 ms, no load has a margin of a factor of 3; of those that come nearest it is the one that gives most.
    assert CURVE.best_load(margin=margin) == Concurrency(load)


def test_of_loads_that_give_as_much_it_is_the_lowest_searched_one() -> None:
    flat = entry((1, 100, 5), (8, 399, 10), (16, 400, 12), (32, 400, 20))
    assert flat.best_load() == Concurrency(8)


def test_without_limits_only_searched_loads_are_tried() -> None:
    assert entry((4, 200, 10), (16, 400, 40), slo=NO_LIMIT).best_load(below=16) == Concurrency(4)
