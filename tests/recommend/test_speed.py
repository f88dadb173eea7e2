from __future__ import annotations

import math

import numpy as np
import pytest

from tuner.recommend.speed import Speed, Spread, after_launches, after_search

QUIET = Spread(0.08, 20)


def test_the_spread_is_eight_percent_until_launches_show_another() -> None:
    assert Spread.of([[], []]) == Spread(0.08, 2)
    rng = np.random.default_rng(0)
    many = [list(0.2 * rng.standard_normal(5) - 0.2 * rng.standard_normal()) for _ in range(20)]
    assert Spread.of(many).deviation == pytest.approx(0.2, rel=0.1)
    alike = Spread.of([[0.0] * 5 for _ in range(20)])
    assert alike.deviation < 0.02


def test_one_disturbed_launch_changes_it_little() -> None:
    rng = np.random.default_rng(0)
    launches = [list(0.08 * rng.standard_normal(4)) for _ in range(6)]
    undisturbed = Spread.of(launches).deviation
    launches[0][0] = 3.0
    assert Spread.of(launches).deviation < 2 * undisturbed


def test_a_machine_that_became_slower_is_no_spread() -> None:
    assert Spread.of([[-0.4, -0.4], [-0.41, -0.4], [-0.4, -0.39]]).deviation < 0.08


def test_the_doubt_about_it_shrinks_with_the_launches() -> None:
    doubts = [Spread(0.08, freedom).doubt for freedom in (2, 9, 30)]
    assert doubts == sorted(doubts, reverse=True)
    # In one of five draws the deviation is lower than the truth by this factor.
    draws = np.std(np.random.default_rng(0).standard_normal((20_000, 10)), axis=1, ddof=1)
    assert float(np.mean(draws * doubts[1] < 1)) == pytest.approx(0.2, abs=0.01)


def test_the_luckiest_are_expected_to_be_slower_and_the_unluckiest_faster() -> None:
    rng = np.random.default_rng(0)
    truths = rng.normal(7.0, 0.2, 2_000)
    searched = truths + 0.2 * rng.standard_normal(2_000)
    expected = after_search(list(searched), Spread(0.2, 50))
    errors = searched + [speed.mean for speed in expected] - truths
    assert float(np.std(errors)) == pytest.approx(expected[0].deviation, rel=0.05)
    best = np.argsort(searched)[-100:]
    assert abs(float(np.mean(errors[best]))) < 0.02 < float(np.mean((searched - truths)[best]))


def test_configs_that_are_alike_are_not_known_to_be_the_same() -> None:
    assert after_search([7.0] * 5, QUIET)[0].deviation > 0


def test_launches_make_a_speed_known() -> None:
    once, often, never = after_launches([Speed(0.0, 0.1)] * 3, [[0.1], [0.1] * 8, []], QUIET)
    assert 0.0 < once.mean < often.mean <= 0.1
    assert often.deviation < once.deviation < never.deviation == 0.1


def test_a_machine_that_became_slower_is_so_for_those_without_a_launch() -> None:
    speeds = after_launches([Speed(0.0, 0.05)] * 4, [[-0.4], [-0.35], [-0.38], []], QUIET)
    assert speeds[3].mean == pytest.approx(-0.37, abs=0.05)


def test_a_config_that_contradicts_all_expectation_is_judged_by_its_launches_alone() -> None:
    lucky, other = after_launches([Speed(0.0, 0.05)] * 2, [[-2.0], []], QUIET)
    assert lucky.mean == pytest.approx(-2.0, abs=0.1)
    assert abs(other.mean) < 0.1


def test_the_posterior_covers_the_truth() -> None:
    """A machine that others use, and configs that differ by a tenth."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(300):
        truths = 0.1 * rng.standard_normal(6) + 0.1 * rng.standard_normal()
        launches = [list(truth + 0.15 * rng.standard_normal(3)) for truth in truths]
        speeds = after_launches([Speed(0.0, 0.1)] * 6, launches, Spread(0.15, 50))
        inside += [abs(s.mean - truth) < 1.96 * s.deviation for s, truth in zip(speeds, truths, strict=True)]
    assert 0.9 < float(np.mean(inside)) < 0.99
    assert math.isfinite(speeds[0].mean)
