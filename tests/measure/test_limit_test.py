from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tuner.measure.limit_test import LimitTest, Verdict, judge, together


@pytest.mark.parametrize(("over", "needed"), [(0, 459), (1, 662), (2, 838), (5, 1307)])
def test_p99_holds_from_as_many_requests_on_as_loadgen_wants(over: int, needed: int) -> None:
    assert judge(needed, over, 0.01) is Verdict.HOLDS
    assert judge(needed - 1, over, 0.01) is Verdict.OPEN


@settings(deadline=None)
@given(st.integers(1, 3_000), st.integers(0, 60), st.sampled_from([0.5, 0.1, 0.05, 0.01]))
def test_the_verdict_is_that_of_the_binomial_distribution(requests: int, over: int, allowed: float) -> None:
    over = min(over, requests)
    counts = stats.binom(requests, allowed)
    expected = Verdict.OPEN
    if counts.cdf(over) <= 0.01:
        expected = Verdict.HOLDS
    elif counts.sf(over - 1) <= 0.01:
        expected = Verdict.BREAKS
    assert judge(requests, over, allowed) is expected


def test_a_server_just_at_its_limit_is_seldom_judged_either_way() -> None:
    over = np.random.default_rng(0).binomial(2_000, 0.01, size=4_000)
    verdicts = [judge(2_000, int(count), 0.01) for count in over]
    assert verdicts.count(Verdict.HOLDS) / len(verdicts) < 0.012
    assert verdicts.count(Verdict.BREAKS) / len(verdicts) < 0.012


def test_nothing_is_known_of_no_request() -> None:
    assert judge(0, 0, 0.01) is Verdict.OPEN


def test_requests_that_hang_together_count_for_fewer() -> None:
    alone = LimitTest(percentile="p99", limit_ms=10, requests=1_000, over=0, design_effect=1)
    batches = alone.model_copy(update={"design_effect": 16.0})
    assert alone.verdict is Verdict.HOLDS
    assert batches.verdict is Verdict.OPEN


def launch(over: int, requests: int = 2_000, effect: float = 1.0) -> LimitTest:
    return LimitTest(percentile="p99", limit_ms=10, requests=requests, over=over, design_effect=effect)


def test_launches_that_agree_add_up() -> None:
    assert launch(4).verdict is Verdict.HOLDS
    assert launch(15).verdict is Verdict.OPEN
    pooled = LimitTest.pooled([launch(15, effect=2), launch(15, effect=4)])
    assert (pooled.requests, pooled.over, pooled.design_effect) == (4_000, 30, 3)
    assert LimitTest.pooled([launch(15)] * 8).verdict is Verdict.HOLDS


def test_launches_that_differ_count_for_less() -> None:
    alike, unlike = [launch(15)] * 4, [launch(0), launch(0), launch(60), launch(0)]
    assert LimitTest.pooled(unlike).over == LimitTest.pooled(alike).over
    assert LimitTest.pooled(unlike).design_effect > 100
    assert LimitTest.pooled(unlike).verdict is Verdict.OPEN


def test_of_launches_at_the_limit_few_are_judged_to_hold() -> None:
    rng = np.random.default_rng(0)
    held = as_if_alike = 0
    for _ in range(1_000):
        # 1 % of requests over the limit on average, and from launch to launch some more or some less.
        pooled = LimitTest.pooled([launch(int(rng.binomial(2_000, share))) for share in rng.gamma(2.0, 0.005, size=6)])
        held += pooled.verdict is Verdict.HOLDS
        as_if_alike += pooled.model_copy(update={"design_effect": 1.0}).verdict is Verdict.HOLDS
    assert held < 40
    assert as_if_alike > 200


def test_all_of_several_limits_must_hold() -> None:
    assert together([]) is Verdict.HOLDS
    assert together([Verdict.HOLDS, Verdict.HOLDS]) is Verdict.HOLDS
    assert together([Verdict.HOLDS, Verdict.OPEN]) is Verdict.OPEN
    assert together([Verdict.OPEN, Verdict.BREAKS]) is Verdict.BREAKS
