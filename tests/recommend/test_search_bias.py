from __future__ import annotations

import pytest
from support.builders import point, trial

from tuner.core.loads import Concurrency
from tuner.recommend.search_bias import SearchBias
from tuner.recommend.verification import Verification

TRIALS = [trial(0, point(1, 100, 10)), trial(1, point(8, 300, 20), point(16, 400, 30)), trial(2, point(8, 350, 20))]


def _again(number: int, load: int, *rounds: tuple[float, float]) -> Verification:
    points = tuple(point(load, throughput, p99) for throughput, p99 in rounds)
    return Verification(trial=number, load=Concurrency(load), rounds=points)


def _bias(*verified: Verification) -> tuple[float, float]:
    bias = SearchBias.of(TRIALS, verified, "p99")
    return bias.throughput, bias.latency


def test_before_any_launch_the_search_saw_the_luckiest() -> None:
    assert _bias() == pytest.approx((0.95, 1.0))
    assert _bias(Verification(trial=1, load=Concurrency(8), failure="crashed: gone")) == pytest.approx((0.95, 1.0))


def test_it_is_the_median_over_what_was_measured_again() -> None:
    twice_as_slow = _again(0, 1, (50, 20)), _again(1, 8, (150, 40))
    assert _bias(*twice_as_slow) == pytest.approx((0.5, 2.0))
    # One that failed to hold up by itself moves it little.
    assert _bias(*twice_as_slow, _again(2, 8, (35, 200))) == pytest.approx((0.5, 2.0), rel=0.01)


def test_one_alone_is_half_believed() -> None:
    assert _bias(_again(0, 1, (95 / 4, 40))) == pytest.approx((0.95 / 2, 2.0))


def test_one_launch_in_which_somebody_needed_the_machine_moves_no_latency() -> None:
    assert _bias(_again(0, 1, (95, 10), (95, 90), (95, 10)))[1] == pytest.approx(1.0)


def test_a_load_between_those_of_the_search_is_compared_with_its_curve() -> None:
    verified = [_again(1, 12, (0.7 * 350, 1.5 * 25)), _again(0, 1, (70, 15))]
    assert _bias(*verified) == pytest.approx((0.7, 1.5))
