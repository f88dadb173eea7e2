from __future__ import annotations

import math

import numpy as np
import pytest
from support.windows import exponential, window

from tuner.core.record import Interval
from tuner.stats.latencies import percentiles
from tuner.stats.rates import growth, throughput
from tuner.stats.window import Window


def test_throughput_counts_from_completion_to_completion() -> None:
    steady = throughput(window(np.full(100, 10.0)))
    assert steady.value == pytest.approx(100)
    assert steady.low == pytest.approx(100)
    assert steady.high == pytest.approx(100)


def test_throughput_of_whole_batches_is_not_off_by_a_batch() -> None:
    gaps = np.tile(np.r_[9.0, np.full(31, 1 / 31)], 40)
    assert throughput(window(gaps)).value == pytest.approx(3_200)


def test_throughput_is_known_better_from_more() -> None:
    few, many = throughput(window(exponential(200))), throughput(window(exponential(20_000)))
    assert many.relative_half_width < few.relative_half_width / 5
    assert many.low <= 100 <= many.high


def test_a_stall_widens_throughputs_interval() -> None:
    gaps = np.full(400, 5.0)
    calm = throughput(window(gaps))
    gaps[200] = 400.0
    stalled = throughput(window(gaps, latency_ms=5.0))
    assert stalled.value < calm.value
    assert stalled.relative_half_width > 0.1
    assert stalled.low <= calm.value <= stalled.high


def test_neighbouring_blocks_that_are_alike_widen_throughputs_interval() -> None:
    rng = np.random.default_rng(0)
    quick, slow = rng.normal(4, 0.5, 1_000).clip(1), rng.normal(6, 0.5, 1_000).clip(1)
    drifting = throughput(window(np.concatenate([quick, slow])))
    mixed = throughput(window(rng.permutation(np.concatenate([quick, slow]))))
    assert drifting.relative_half_width > 3 * mixed.relative_half_width


def test_a_single_completion_has_a_wide_interval() -> None:
    interval = throughput(window(np.array([50.0])))
    assert interval.value == pytest.approx(20)
    assert interval.low < 1
    assert interval.high > 100


def test_one_batch_tells_no_more_than_one_completion() -> None:
    interval = throughput(window(np.r_[500.0, np.full(31, 0.01)], latency_ms=500))
    assert interval.relative_half_width > 1


def test_an_empty_window_is_refused() -> None:
    empty = window(np.array([]))
    with pytest.raises(ValueError, match="no request"):
        throughput(empty)
    with pytest.raises(ValueError, match="no request"):
        percentiles(empty)


def grown(slope: float, noise_ms: float = 1.0, count: int = 1_000) -> Interval:
    """Of latencies that grow in proportion to time, over 2 s."""
    done_ns = np.linspace(0, 2e9, count).astype(np.int64)
    noise = np.random.default_rng(0).normal(20, noise_ms, count)
    return growth(Window(0, done_ns, done_ns / 1e6 * slope + noise))


def test_growth_is_in_seconds_a_second() -> None:
    for slope in (0.05, -0.05, 2.0):
        found = grown(slope)
        assert found.value == pytest.approx(slope, abs=0.001)
        assert found.low < slope < found.high
        assert found.high - found.low < 0.01


def test_latency_that_does_not_grow_has_a_growth_around_nothing() -> None:
    found = grown(0.0, noise_ms=10.0)
    assert found.low < 0 < found.high


def test_growth_of_few_requests_is_not_known() -> None:
    assert grown(1.0, count=63).low == -math.inf
    assert grown(1.0, count=64).low > 0


def test_growth_of_what_ended_at_once_is_sound() -> None:
    found = growth(Window(0, np.full(100, 5), np.linspace(1, 2, 100)))
    assert found.low <= found.value <= found.high
