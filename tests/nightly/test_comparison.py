from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from support.builders import interval, point

from tuner.core.slo import Limit, Percentile, share_of
from tuner.measure.points import OperatingPoint
from tuner.nightly.comparison import launches_hold

# Standard deviations of a normal distribution from its median to its p99.
Z99 = float(stats.norm.ppf(0.99))


def launch(position: float, within: float) -> OperatingPoint:
    """Of a log-normal latency whose median is 10 ms times exp(position), with such a spread of its logarithm."""
    median_ms = 10 * math.exp(position)
    names: tuple[Percentile, ...] = ("p50", "p90", "p95", "p99")
    latency_ms = {name: interval(median_ms * math.exp(within * stats.norm.ppf(share_of(name)))) for name in names}
    return point(8).model_copy(update={"latency_ms": latency_ms})


@pytest.mark.parametrize("name", ["p50", "p90", "p99"])
@pytest.mark.parametrize(("noise", "within"), [(0.05, 0.07), (0.05, 0.2), (0.08, 0.2)])
def test_of_launches_at_the_limit_hardly_any_are_said_to_hold_it(name: Percentile, noise: float, within: float) -> None:
    """The limit is the percentile of all requests of all launches: latency and speed are log-normal."""
    rng = np.random.default_rng(0)
    limit_ms = 10 * math.exp(float(stats.norm.ppf(share_of(name))) * math.hypot(noise, within))
    held = dict.fromkeys((1.0, 1.5), 0)
    for _ in range(100):
        rounds = [launch(noise * rng.standard_normal(), within) for _ in range(6)]
        for room in held:
            held[room] += launches_hold(rounds, Limit("latency", name, room * limit_ms), 0.005)
    assert held[1.0] <= 2
    assert held[1.5] >= 95


def test_one_launch_tells_nothing_of_others() -> None:
    assert not launches_hold([launch(0.0, 0.1)], Limit("latency", "p99", 1e6), 0.01)
    assert launches_hold([launch(0.0, 0.1)] * 2, Limit("latency", "p99", 1e6), 0.01)


def least_limit_ms(rounds: list[OperatingPoint], chance: float = 0.01, name: Percentile = "p99") -> float:
    """The lowest limit that they are said to hold, to a hundredth of a percent."""
    low, high = 1.0, 1e4
    while high > 1.0001 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if launches_hold(rounds, Limit("latency", name, middle), chance) else (middle, high)
    return high


def test_launches_that_are_alike_leave_as_much_open_as_is_typical() -> None:
    """Four launches without any spread, and a prior of three with 5 %: six degrees of freedom."""
    spread = 0.05 * math.sqrt(3 / 6)
    of_mean = float(stats.t.isf(0.01, 6)) / 2
    assert least_limit_ms([launch(0.0, 0.1)] * 4, name="p50") == pytest.approx(
        10 * math.exp(of_mean * spread), rel=1e-3
    )
    # Where all requests of a launch are alike, it is a tolerance limit.
    of_launch = float(stats.nct.isf(0.01, 6, 2 * Z99)) / 2
    assert least_limit_ms([launch(0.0, 1e-9)] * 4) == pytest.approx(10 * math.exp(of_launch * spread), rel=1e-3)


def test_more_launches_more_spread_and_a_lower_chance_move_the_limit() -> None:
    apart = [launch(position, 0.1) for position in (-0.1, 0.1)]
    assert least_limit_ms(apart * 4) < least_limit_ms(apart * 2)
    assert least_limit_ms(apart * 2) > 1.1 * least_limit_ms([launch(0.0, 0.1)] * 4)
    assert least_limit_ms(apart * 2, 0.001) > least_limit_ms(apart * 2, 0.01)
