from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.windows import exponential, sound, window

from tuner.core.slo import PERCENTILES, SLO
from tuner.stats.latencies import percentiles, slo_tests
from tuner.stats.rates import throughput
from tuner.stats.slo_verdict import Verdict
from tuner.stats.window import Window


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
    p50, p99 = slo_tests(seen, SLO({"p99": 990.0, "p50": 400.0}))
    assert (p50.percentile, p50.limit_ms, p50.requests, p50.over) == ("p50", 400, 1_000, 600)
    assert (p99.percentile, p99.limit_ms, p99.requests, p99.over) == ("p99", 990, 1_000, 10)
    assert p50.verdict is Verdict.BREAKS
    assert p99.verdict is Verdict.OPEN


def test_batch_mates_tell_less_of_a_limit_than_as_many_requests_alone() -> None:
    rng = np.random.default_rng(0)
    of_batches = np.repeat(rng.gamma(25, 1, 200), 16)
    done_ns = np.cumsum(np.full(len(of_batches), 1_000_000))
    slo = SLO({"p90": 30.0})
    (together,) = slo_tests(Window(0, done_ns, of_batches), slo)
    (alone,) = slo_tests(Window(0, done_ns, rng.permutation(of_batches)), slo)
    assert together.design_effect > 4 * alone.design_effect


def test_without_a_limit_there_is_nothing_to_test() -> None:
    assert slo_tests(window(exponential(100)), SLO()) == ()
