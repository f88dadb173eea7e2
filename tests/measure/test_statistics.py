from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measure.limit_test import Verdict
from tuner.measure.record import Interval
from tuner.measure.statistics import growth, limit_tests, percentiles, throughput
from tuner.measure.window import Window
from tuner.slo import PERCENTILES, SLO


def window(gaps_ms: np.ndarray[tuple[int], np.dtype[np.float64]], latency_ms: float | None = None) -> Window:
    """Completions at these distances; each takes its gap, as one after the other does, or always the same."""
    done_ns = np.cumsum(gaps_ms * 1e6).astype(np.int64)
    return Window(0, done_ns, gaps_ms if latency_ms is None else np.full(len(gaps_ms), latency_ms))


def exponential(count: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).exponential(10, count)


def sound(interval: Interval) -> bool:
    return 0 <= interval.low <= interval.value <= interval.high < math.inf


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


def test_percentiles_are_those_of_the_latencies() -> None:
    found = percentiles(window(exponential(50_000)))
    for name, share in zip(PERCENTILES, (0.5, 0.9, 0.95, 0.99), strict=True):
        assert found[name].value == pytest.approx(-10 * math.log(1 - share), rel=0.06)
        assert found[name].low <= -10 * math.log(1 - share) <= found[name].high
        assert found[name].relative_half_width < 0.1


def test_p99_of_few_requests_reaches_beyond_the_largest() -> None:
    latencies = exponential(60)
    p99 = percentiles(window(latencies))["p99"]
    assert p99.high > latencies.max() > p99.value > p99.low
    assert p99.high > -10 * math.log(0.01)


def test_p99_of_few_steady_requests_is_known_well() -> None:
    p99 = percentiles(window(np.random.default_rng(0).normal(25, 0.3, 60)))["p99"]
    assert p99.relative_half_width < 0.05


def test_mates_of_a_batch_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(0)
    batch_ms = rng.normal(20, 2, 100)
    gaps = np.concatenate([np.r_[gap, np.full(31, 0.001)] for gap in batch_ms])
    done_ns = np.cumsum(gaps * 1e6).astype(np.int64)
    together = percentiles(Window(0, done_ns, np.repeat(batch_ms, 32)))["p50"]
    apart = percentiles(Window(0, done_ns, rng.permutation(np.repeat(batch_ms, 32))))["p50"]
    assert together.relative_half_width > 3 * apart.relative_half_width


def test_percentiles_of_one_batch_are_bounded_like_those_of_one_request() -> None:
    latencies = np.linspace(10, 20, 32)
    p50 = percentiles(Window(0, np.full(32, 500_000_000), latencies))["p50"]
    assert p50.low < 11
    assert p50.high >= 20


@pytest.mark.parametrize("count", [1, 2, 7])
def test_so_few_latencies_bound_next_to_nothing(count: int) -> None:
    found = percentiles(window(np.full(count, 10.0)))
    assert found["p99"].high > 4 * found["p99"].value
    assert found["p50"].value == 10


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


@given(
    gaps=st.lists(st.floats(0, 1e3) | st.just(0.0) | st.floats(0, 1e-3), min_size=1, max_size=120),
    same=st.none() | st.floats(1e-3, 1e4),
)
def test_whatever_comes_the_intervals_are_sound_and_in_order(gaps: list[float], same: float | None) -> None:
    seen = window(np.array(gaps), same)
    assert sound(throughput(seen))
    found = [percentiles(seen)[name] for name in PERCENTILES]
    assert all(sound(interval) for interval in found)
    for part in ("value", "low", "high"):
        ends = [getattr(interval, part) for interval in found]
        assert ends == sorted(ends)


def test_requests_over_a_limit_are_counted_exactly() -> None:
    latency_ms = np.random.default_rng(0).permutation(np.arange(1.0, 1_001.0))
    seen = Window(0, np.cumsum(np.full(1_000, 1_000_000)), latency_ms)
    p50, p99 = limit_tests(seen, SLO({"p99": 990.0, "p50": 400.0}))
    assert (p50.percentile, p50.limit_ms, p50.requests, p50.over) == ("p50", 400, 1_000, 600)
    assert (p99.percentile, p99.limit_ms, p99.requests, p99.over) == ("p99", 990, 1_000, 10)
    assert p50.verdict is Verdict.BREAKS
    assert p99.verdict is Verdict.OPEN


def test_batch_mates_tell_less_of_a_limit_than_as_many_requests_alone() -> None:
    rng = np.random.default_rng(0)
    of_batches = np.repeat(rng.gamma(25, 1, 200), 16)
    done_ns = np.cumsum(np.full(len(of_batches), 1_000_000))
    slo = SLO({"p90": 30.0})
    (together,) = limit_tests(Window(0, done_ns, of_batches), slo)
    (alone,) = limit_tests(Window(0, done_ns, rng.permutation(of_batches)), slo)
    assert together.design_effect > 4 * alone.design_effect


def test_without_a_limit_there_is_nothing_to_test() -> None:
    assert limit_tests(window(exponential(100)), SLO()) == ()
