from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from tuner.core.slo import PERCENTILES, Percentile
from tuner.stats.slo_verdict import SLOTest, Verdict, judge, together


@pytest.mark.parametrize(("over", "needed"), [(0, 556), (1, 862), (2, 1097), (5, 1683)])
def test_p99_holds_from_so_many_requests_on(over: int, needed: int) -> None:
    assert judge(needed, over, 0.01) is Verdict.HOLDS
    assert judge(needed - 1, over, 0.01) is Verdict.OPEN


@given(st.integers(1, 3_000), st.integers(0, 60), st.sampled_from([0.5, 0.1, 0.05, 0.01]))
def test_whoever_looks_once_is_asked_for_less(requests: int, over: int, allowed: float) -> None:
    """The evidence that suffices at any look suffices at one, by the binomial distribution."""
    over = min(over, requests)
    counts = stats.binom(requests, allowed)
    verdict = judge(requests, over, allowed)
    if verdict is Verdict.HOLDS:
        assert counts.cdf(over) <= 0.01
    elif verdict is Verdict.BREAKS:
        assert counts.sf(over - 1) <= 0.01


@pytest.mark.parametrize("allowed", [0.01, 0.1, 0.5])
def test_the_evidence_is_that_of_the_mixture(allowed: float) -> None:
    """As numerical integration has it: of all smaller shares by Jeffreys' prior, against the allowed one."""
    requests, over = 300, int(300 * allowed * 0.4)
    prior = stats.beta(0.5, 0.5)
    mixed, _ = integrate.quad(lambda p: prior.pdf(p) * stats.binom.pmf(over, requests, p), 0, allowed)
    ratio = mixed / prior.cdf(allowed) / stats.binom.pmf(over, requests, allowed)
    assert judge(requests, over, allowed, tests=math.floor(ratio * 0.01 * 0.99) or 1) is (
        Verdict.HOLDS if ratio >= 100 else Verdict.OPEN
    )
    assert judge(requests, over, allowed, tests=math.ceil(ratio * 0.01 * 1.01)) is Verdict.OPEN


def wrongly_judged(
    share: float, wrong: Verdict, *, servers: int, requests: int = 5_000, allowed: float = 0.01
) -> float:
    """Of servers with such a share of requests over the limit, how many are judged so at any look, after each 200."""
    over = np.random.default_rng(0).binomial(200, share, size=(servers, requests // 200)).cumsum(axis=1)
    looks = 200 * np.arange(1, requests // 200 + 1)
    return sum(any(judge(n, k, allowed) is wrong for n, k in zip(looks, row, strict=True)) for row in over) / servers


def test_a_server_just_at_its_limit_is_seldom_judged_either_way_however_often_one_looks() -> None:
    assert wrongly_judged(0.01, Verdict.HOLDS, servers=300) <= 0.01
    assert wrongly_judged(0.01, Verdict.BREAKS, servers=300) <= 0.01
    assert wrongly_judged(0.004, Verdict.HOLDS, servers=50) > 0.9


@pytest.mark.statistics
@pytest.mark.parametrize("allowed", [0.01, 0.1, 0.5])
def test_of_many_servers_just_at_their_limit_one_in_a_hundred_is_judged_at_most(allowed: float) -> None:
    for verdict in (Verdict.HOLDS, Verdict.BREAKS):
        assert wrongly_judged(allowed, verdict, servers=1_000, requests=10_000, allowed=allowed) <= 0.01


def test_one_of_several_tests_asks_for_more() -> None:
    assert judge(600, 0, 0.01) is Verdict.HOLDS
    assert judge(600, 0, 0.01, tests=6) is Verdict.OPEN
    test = SLOTest(percentile="p99", limit_ms=10, requests=600, over=0, design_effect=1)
    assert (test.verdict, test.verdict_among(6)) == (Verdict.HOLDS, Verdict.OPEN)


@pytest.mark.parametrize("tests", [1, 2, 6])
@pytest.mark.parametrize("percentile", PERCENTILES)
def test_the_fewest_requests_are_those_from_which_on_it_holds(percentile: Percentile, tests: int) -> None:
    test = SLOTest(percentile=percentile, limit_ms=10, requests=1, over=0, design_effect=1)
    fewest = test.fewest(tests)
    assert judge(fewest, 0, test.allowed, tests) is Verdict.HOLDS
    assert judge(fewest - 1, 0, test.allowed, tests) is Verdict.OPEN


def test_nothing_is_known_of_no_request() -> None:
    assert judge(0, 0, 0.01) is Verdict.OPEN


def test_requests_that_hang_together_count_for_fewer() -> None:
    alone = SLOTest(percentile="p99", limit_ms=10, requests=1_000, over=0, design_effect=1)
    batches = alone.model_copy(update={"design_effect": 16.0})
    assert alone.verdict is Verdict.HOLDS
    assert batches.verdict is Verdict.OPEN


def launch(over: int, requests: int = 2_000, effect: float = 1.0) -> SLOTest:
    return SLOTest(percentile="p99", limit_ms=10, requests=requests, over=over, design_effect=effect)


def test_launches_that_agree_add_up() -> None:
    assert launch(4).verdict is Verdict.HOLDS
    assert launch(15).verdict is Verdict.OPEN
    pooled = SLOTest.pooled([launch(15, effect=2), launch(15, effect=4)])
    assert (pooled.requests, pooled.over, pooled.design_effect) == (4_000, 30, 3)
    assert SLOTest.pooled([launch(15)] * 16).verdict is Verdict.HOLDS


def test_launches_that_differ_count_for_less() -> None:
    alike, unlike = [launch(15)] * 4, [launch(0), launch(0), launch(60), launch(0)]
    assert SLOTest.pooled(unlike).over == SLOTest.pooled(alike).over
    assert SLOTest.pooled(unlike).design_effect > 100
    assert SLOTest.pooled(unlike).verdict is Verdict.OPEN


def test_how_much_less_they_count_for() -> None:
    # The variance of 10 and 30 of 2,000 over that of independent requests; 12.71 is Student's quantile of two launches.
    variance = 2 * 10**2 / (2_000 * 0.01 * 0.99)
    of_two, of_many = stats.t(1).ppf(0.975), stats.t(3_999).ppf(0.975)
    assert SLOTest.pooled([launch(10), launch(30)]).design_effect == pytest.approx(variance * (of_two / of_many) ** 2)
    # One launch, or one of which no request is over, tells nothing of how they differ.
    assert SLOTest.pooled([launch(30, effect=3)]).design_effect == 3
    assert SLOTest.pooled([launch(0), launch(0)]).design_effect == 1
    assert SLOTest.pooled([launch(2_000), launch(2_000)]).design_effect == 1


def test_of_launches_at_the_limit_few_are_judged_to_hold() -> None:
    rng = np.random.default_rng(0)
    held = as_if_alike = 0
    for _ in range(1_000):
        # 1 % of requests over the limit on average, and from launch to launch some more or some less.
        pooled = SLOTest.pooled([launch(int(rng.binomial(2_000, share))) for share in rng.gamma(2.0, 0.005, size=6)])
        held += pooled.verdict is Verdict.HOLDS
        as_if_alike += pooled.model_copy(update={"design_effect": 1.0}).verdict is Verdict.HOLDS
    assert held < 15
    assert as_if_alike > 100


def test_all_of_several_limits_must_hold() -> None:
    assert together([]) is Verdict.HOLDS
    assert together([Verdict.HOLDS, Verdict.HOLDS]) is Verdict.HOLDS
    assert together([Verdict.HOLDS, Verdict.OPEN]) is Verdict.OPEN
    assert together([Verdict.OPEN, Verdict.BREAKS]) is Verdict.BREAKS
