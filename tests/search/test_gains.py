from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tuner.search.gains import any_holds, at_rate, dominated, gains, within_limit
from tuner.search.twin.forecast import Curves

NAN = float("nan")


def curves(throughput: list[list[float]], latency_ms: list[list[float]], deviation: float = 0.0) -> Curves:
    x, y = np.log(np.array(throughput)), np.log(np.array(latency_ms))
    unsure = np.where(np.isnan(x), NAN, deviation)
    return Curves(2.0 ** np.arange(x.shape[1]), x, unsure, y, unsure, np.full(len(x), np.inf))


def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    told: NDArray[np.float64] = values.mean(axis=1)
    return told


def test_throughput_counts_up_to_the_limit() -> None:
    told = curves([[100, 200, 400], [100, 150, 160], [90, 95, NAN]], [[5, 10, 40], [5, 8, 12], [30, 60, NAN]])
    values = mean(within_limit(told, 20.0, seed=0))
    # Half way, in logarithms, from 10 to 40 ms.
    assert values == pytest.approx([200 * np.sqrt(2), 160, math.log(20 / 30)])


def test_the_hypervolume_is_that_of_front_and_candidate() -> None:
    told = curves([[100, 200], [50, 60]], [[5, 10], [5, 10]])
    front = np.array([[8.0, 120.0]])
    better, worse = mean(dominated(told, 20.0, front, seed=0))
    assert worse == pytest.approx((8 - 5) * 50 + 12 * 120, rel=0.05)
    assert better == pytest.approx(3 * 100 + 2 * 120 + 10 * 200, rel=0.05)


def test_gains_are_over_the_best_that_was_measured() -> None:
    values = np.array([[100.0, 100.0], [90.0, 90.0], [120.0, 80.0], [130.0, 110.0]])
    told = gains(values, np.array([True, True, False, False]), worthwhile=0.15)
    assert told.expected == pytest.approx([0, 0, 0.1, 0.2])
    assert told.likely == pytest.approx([0, 0, 0.5, 0.5])


def test_unlikely_large_gains_do_not_outweigh_likely_ones() -> None:
    values = np.array([[100.0] * 10, [120.0] * 10, [1_000.0] + [50.0] * 9])
    _, likely, large = gains(values, np.array([True, False, False]), worthwhile=0.01).expected
    assert likely > large > 0


def test_who_equals_a_measured_one_in_each_draw_gains_nothing() -> None:
    # All may be better than the mean of the measured one; the last one in other draws.
    values = np.array([[80.0, 120.0] * 5, [80.5, 121.0] * 5, [120.0, 80.0] * 5])
    told = gains(values, np.array([True, False, False]), worthwhile=0.01)
    assert told.expected[1] < 0.1 * told.expected[2]
    assert told.likely[1] < 0.1 * told.likely[2]


def test_where_nothing_holds_yet_what_may_is_sought() -> None:
    values = np.array([[0.0, 0.0], [0.0, 50.0], [0.0, 0.0]])
    told = gains(values, np.array([True, False, False]), worthwhile=0.01)
    assert int(np.argmax(told.expected)) == 1
    assert told.likely == pytest.approx([0, 0.5, 0])


def test_what_comes_nearer_to_the_limit_is_sought_before_anything_holds_it() -> None:
    values = np.array([[-0.5, -0.5], [-0.6, -0.4], [-0.1, -0.3], [-0.9, 50.0]])
    told = gains(values, np.array([True, False, False, False]), worthwhile=0.01).expected
    assert told[0] == 0
    assert 0 < told[1] < told[2] < told[3]


def test_before_anything_holds_the_limit_its_probability_counts_more_than_throughput() -> None:
    values = np.array([[-0.1] * 5, [-0.1, -0.1, 10.0, 10.0, 10.0], [-0.1, -0.1, -0.1, 100.0, 100.0]])
    told = gains(values, np.array([True, False, False]), worthwhile=0.01)
    assert int(np.argmax(told.expected)) == 1
    equal = gains(values[:, 3:], np.array([True, False, False]), worthwhile=0.01)
    assert int(np.argmax(equal.expected)) == 2


def test_one_draw_that_holds_it_is_not_a_candidate_that_does() -> None:
    assert not any_holds(np.array([[-0.2, -0.1, 50.0]]))
    assert any_holds(np.array([[-0.2, -0.1, -0.1], [-0.1, 40.0, 50.0]]))
    assert not any_holds(np.empty((0, 3)))


def test_who_is_uncertain_may_gain_more() -> None:
    sure, unsure = (curves([[100.0], [99.0]], [[5.0], [5.0]], deviation) for deviation in (0.01, 0.3))
    one, other = (
        gains(within_limit(each, 50.0, seed=0), np.array([True, False]), 0.01).expected[1] for each in (sure, unsure)
    )
    assert other > one


def test_at_a_rate_the_inverse_of_latency_counts_of_who_keeps_up() -> None:
    told = curves([[100.0], [100.0], [90.0], [100.0]], [[5.0], [20.0], [2.0], [50.0]])
    assert mean(at_rate(told, 97.0, math.inf, seed=0)) == pytest.approx([200, 50, 0, 20])
    assert mean(at_rate(told, 97.0, 30.0, seed=0)) == pytest.approx([200, 50, 0, 0])
