from __future__ import annotations

import numpy as np
import pytest

from tuner.stats.trend import gap_trend, latency_trend
from tuner.stats.window import Window


def window(latency_ms: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Window:
    """Of requests one after the other."""
    return Window(0, (np.cumsum(latency_ms) * 1e6).astype(np.int64), latency_ms)


def noisy(slope: float, count: int = 200, seed: int = 0, spread: float = 0.1) -> Window:
    """Latencies of 10 ms that change by so much, as a share of it, from the first to the last."""
    rng = np.random.default_rng(seed)
    return window(10 * np.linspace(1, 1 + slope, count) * rng.gamma(1 / spread**2, spread**2, count))


@pytest.mark.parametrize("slope", [1.0, 0.3, -0.4])
def test_a_change_is_found_in_latency_and_in_throughput(slope: float) -> None:
    for trend in (latency_trend(noisy(slope)), gap_trend(noisy(slope))):
        assert trend is not None
        assert trend.first == pytest.approx(10 * (1 + slope / 4), rel=0.03)
        assert trend.second == pytest.approx(10 * (1 + 3 * slope / 4), rel=0.05)


def test_a_change_that_is_surely_there_and_matters_to_nobody_is_none() -> None:
    assert latency_trend(noisy(0.06, spread=0.001)) is None
    assert latency_trend(noisy(0.2, spread=0.001)) is not None


def test_noise_is_no_change() -> None:
    found = [latency_trend(noisy(0, seed=seed, spread=spread)) for spread in (0.1, 1.0) for seed in range(250)]
    assert sum(trend is not None for trend in found) <= 5


def test_a_stall_is_no_change() -> None:
    latency_ms = np.full(200, 10.0) + np.random.default_rng(0).random(200)
    latency_ms[150] = 500
    assert latency_trend(window(latency_ms)) is None


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_tell_nothing(count: int) -> None:
    growing = window(np.linspace(10, 100, count))
    assert (latency_trend(growing), gap_trend(growing)) == (None, None)


def test_throughput_may_change_where_latency_does_not() -> None:
    """Ever fewer requests are under way."""
    gaps_ms = np.repeat([1.0, 2.0], 100) + np.random.default_rng(0).random(200) / 10
    thinning = Window(0, (np.cumsum(gaps_ms) * 1e6).astype(np.int64), np.full(200, 10.0))
    assert latency_trend(thinning) is None
    trend = gap_trend(thinning)
    assert trend is not None
    assert (trend.first, trend.second) == pytest.approx((1.05, 2.05), rel=0.02)
