from __future__ import annotations

import math

import numpy as np
import pytest
from support.builders import interval, point, trial

from tuner.core.loads import Concurrency
from tuner.core.slo import SLO
from tuner.recommend.gain import paired_ratio, pairs_of, ratio
from tuner.recommend.recommend import recommend
from tuner.recommend.verification import Verification


def test_a_ratios_interval_holds_both_uncertainties() -> None:
    gain = ratio(interval(300, 0.03), interval(100, 0.04))
    assert gain.value == pytest.approx(3.0)
    assert math.log(gain.high / gain.value) == pytest.approx(0.05)
    assert gain.low < gain.value < gain.high


def test_what_both_of_a_pair_share_cancels_out() -> None:
    pairs = [(interval(300 * speed, 0.001), interval(100 * speed, 0.001)) for speed in (0.8, 1.0, 1.25)]
    gain = paired_ratio(pairs)
    assert gain.value == pytest.approx(3.0)
    assert gain.high / gain.low < 1.01


def test_pairs_that_agree_are_no_surer_than_what_each_knows() -> None:
    gain = paired_ratio([(interval(300, 0.03), interval(100, 0.04))] * 4)
    assert math.log(gain.high / gain.value) == pytest.approx(0.05 / 2)


@pytest.mark.parametrize("pairs", [2, 4])
@pytest.mark.parametrize("deviation", [0.03, 0.08, 0.2])
def test_the_interval_covers_the_truth_as_often_as_it_says(pairs: int, deviation: float) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1_000):
        speeds = np.exp(deviation * rng.standard_normal((pairs, 2)))
        gain = paired_ratio([(interval(300 * a, 0.001), interval(100 * b, 0.001)) for a, b in speeds])
        covered += gain.low <= 3.0 <= gain.high
    assert 930 <= covered <= 970


def test_two_pairs_that_differ_much_still_say_something() -> None:
    gain = paired_ratio([(interval(600, 0.03), interval(100, 0.03)), (interval(300, 0.03), interval(100, 0.03))])
    assert gain.value == pytest.approx(math.sqrt(18))
    assert gain.low > 1


def _verified(number: int, rates: dict[int, float], choosing: int = 0) -> Verification:
    return Verification(
        trial=number,
        load=Concurrency(8),
        rounds=tuple(point(8, rate, 20) for rate in rates.values()),
        numbers=tuple(rates),
        choosing=choosing,
    )


def test_pairs_are_of_the_same_round_and_confirm() -> None:
    best = _verified(1, {1: 900, 2: 300, 4: 330}, choosing=1)
    baseline = _verified(0, {1: 100, 2: 100, 3: 500, 4: 110})
    assert [(a.value, b.value) for a, b in pairs_of(best, baseline)] == [(300, 100), (330, 110)]
    found = recommend([trial(0, point(8, 100, 20)), trial(1, point(8, 900, 20))], SLO(), [best, baseline])
    assert found.gain is not None
    assert found.gain.value == pytest.approx(3.0)


def test_rounds_without_numbers_are_no_pairs() -> None:
    old = Verification(trial=1, load=Concurrency(8), rounds=(point(8, 300, 20),) * 3)
    assert pairs_of(old, old) == ()
