from __future__ import annotations

import numpy as np
import pytest
from support.builders import point

from tuner.core.loads import RequestRate
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.recommend.curve import headroom, latency_ms_at, smoothed, throughput_at

CURVE = (point(8, 300, 20), point(16, 400, 30), point(32, 440, 60))


@pytest.mark.parametrize(
    ("level", "throughput", "p99"),
    [(2, 75, 20), (8, 300, 20), (12, 350, 25), (16, 400, 30), (24, 420, 45), (32, 440, 60), (64, 440, 60)],
)
def test_a_curve_is_straight_between_its_points(level: int, throughput: float, p99: float) -> None:
    assert throughput_at(CURVE, level) == pytest.approx(throughput)
    assert latency_ms_at(CURVE, "p99", level) == pytest.approx(p99)
    assert latency_ms_at(CURVE, "p50", level) == pytest.approx(p99 / 2)


def test_the_best_of_a_smooth_curve_is_less_lucky_than_the_best_point() -> None:
    rng = np.random.default_rng(0)
    best = []
    for _ in range(50):
        rates = 1000 * np.exp(0.05 * rng.standard_normal(6))
        noisy = [point(2**n, float(rate), 10.0 * 2**n, share=0.1) for n, rate in enumerate(rates)]
        best.append([max(p.throughput.value for p in points) for points in (noisy, smoothed(noisy))])
    lucky, smooth = np.log(np.mean(best, axis=0) / 1000)
    assert lucky > 0.05
    assert smooth < 0.9 * lucky


def test_a_curve_keeps_its_shape() -> None:
    rates = [100 * n / (1 + n / 16) for n in (1, 2, 4, 8, 16, 32, 64, 128)]
    curve = [point(2**n, rate, 2**n / rate * 1e3) for n, rate in enumerate(rates)]
    assert [p.throughput.value for p in smoothed(curve)] == pytest.approx(rates, rel=0.02)
    assert [p.latency_ms["p99"].value for p in smoothed(curve)] == pytest.approx(
        [p.latency_ms["p99"].value for p in curve], rel=0.04
    )


@pytest.mark.parametrize(
    "points",
    [
        (),
        (point(1, 90, 5), point(8, 300, 24)),
        (point(1, 90, 5), point(8, 300, 24), point(8, 310, 24)),
        tuple(point(RequestRate(rate), rate, 5) for rate in (10.0, 20.0, 40.0)),
        (point(1, 0, 5), point(2, 0, 24), point(4, 0, 24)),
    ],
)
def test_what_is_no_curve_stays_as_it_is(points: tuple[OperatingPoint, ...]) -> None:
    assert [p.throughput for p in smoothed(points)] == [p.throughput for p in points]


@pytest.mark.parametrize(
    ("load", "p99", "limit_ms", "expected"),
    [
        (8, 20, 1e3, 440 / 300),  # as far as it was measured
        (8, 20, 20, 1.0),  # at its limit
        (8, 20, 30, 400 / 300),  # until it breaks
        (8, 40, 30, 1.0),  # over it
        (32, 60, 1e3, 1.0),  # nothing was measured beyond
    ],
)
def test_headroom_is_what_the_curve_gives_until_the_slo_breaks(
    load: int, p99: float, limit_ms: float, expected: float
) -> None:
    two = (CURVE[0], CURVE[1]) if limit_ms == 30 else CURVE
    assert headroom(two, point(load, 100, p99), SLO({"p99": limit_ms})) == pytest.approx(expected, rel=0.03)
