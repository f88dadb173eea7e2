from __future__ import annotations

import random
import re

import picks
import pytest
from support.builders import interval
from support.nights import comparison, launch_at

from tuner.core.loads import Concurrency
from tuner.core.slo import PERCENTILES, SLO
from tuner.nightly.comparison import Comparison, PairedLaunch, sequential_ratio
from tuner.nightly.gate import decide, is_settled
from tuner.recommend.gain import paired_ratio
from tuner.stats.slo_verdict import Verdict

FOUR = [1.30, 1.32, 1.31, 1.29]


def test_it_acts_on_a_sure_gain_that_holds_the_slo() -> None:
    decision = decide(comparison(FOUR), min_gain=0.03)
    assert decision.act
    assert decision.reason.startswith("1.30 x the throughput (1.2")
    assert decision.reason.endswith("in 4 pairs of launches; p99 <= 25 ms holds (99 % confidence)")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "nothing better"),
        (comparison(FOUR[:3]), "time for only 3 pairs"),
        (comparison([]), "time for only 0 pairs"),
        (comparison([1.0, 1.01, 0.99, 1.0]), "gain not shown to exceed 3.0% (95 % confidence)"),
        (comparison([1.05, 1.9, 0.8, 1.5]), "gain not shown to exceed 3.0% (95 % confidence)"),
        (comparison([1.04, 1.04, 1.04, 1.04]), "gain not shown to exceed 3.0% (95 % confidence)"),
        (comparison(FOUR, over=200), "violates p99 <= 25 ms (99 % confidence)"),
        (comparison(FOUR, over=20), "not shown that the candidate holds p99 <= 25 ms: p99 of "),
        (comparison(FOUR, slo=SLO({"p99": 20.0})), "not shown that the candidate holds"),
        (comparison(FOUR, failure="out_of_memory: CUDA"), "the candidate failed: out_of_memory: CUDA"),
    ],
)
def test_else_it_keeps_what_is_deployed(found: Comparison | None, reason: str) -> None:
    decision = decide(found, min_gain=0.03)
    assert not decision.act
    assert reason in decision.reason


def test_it_says_of_each_load_why_no_test_shows_that_the_slo_is_held() -> None:
    near = launch_at((64, 130.0), over=20).points
    slow = near[0].model_copy(update={"latency_ms": dict.fromkeys(PERCENTILES, interval(13.0))})
    few = launch_at((32, 120.0), requests=100).points
    found = comparison(FOUR).model_copy(
        update={
            "loads": (Concurrency(64), Concurrency(32)),
            "candidate": (*[PairedLaunch(points=near + few)] * 3, PairedLaunch(points=(slow, *few))),
        }
    )
    reason = decide(found, min_gain=0.03).reason
    assert "p99 of 10 to 13 ms at concurrency 64; p99 of " in reason
    assert re.search(r"at concurrency 32, worth 400 independent requests \(at least 632 needed\); 1.", reason)


def test_without_an_slo_the_gain_decides() -> None:
    assert decide(comparison(FOUR, slo=SLO(), over=500), min_gain=0.03).act


def test_more_gain_may_be_asked_for() -> None:
    assert not decide(comparison(FOUR), min_gain=0.3).act
    assert decide(comparison(FOUR), min_gain=0.2).act


def test_it_is_settled_when_more_pairs_change_nothing() -> None:
    assert is_settled(comparison(FOUR), min_gain=0.03)
    assert is_settled(comparison([0.9, 0.91, 0.9, 0.89]), min_gain=0.03)
    assert is_settled(comparison(FOUR[:1], over=200), min_gain=0.03)
    assert not is_settled(comparison(FOUR[:3]), min_gain=0.03)
    assert not is_settled(comparison([1.05, 1.9, 0.8, 1.5]), min_gain=0.03)
    assert not is_settled(comparison(FOUR, over=20), min_gain=0.03)


def test_the_deployed_config_counts_at_its_better_load() -> None:
    pairs = 4
    found = Comparison(
        slo=SLO({"p99": 25.0}),
        loads=(Concurrency(64),),
        deployed=tuple(launch_at((8, 100.0), (64, 130.0)) for _ in range(pairs)),
        candidate=tuple(launch_at((64, 131.0)) for _ in range(pairs)),
    )
    assert found.deployed_load == Concurrency(64)
    assert found.gain
    assert found.gain.value == pytest.approx(131 / 130)


def test_a_load_at_which_it_surely_breaks_the_slo_does_not_count() -> None:
    broken = launch_at((8, 100.0)).points + launch_at((64, 130.0), over=400).points
    side = launch_at((8, 100.0)).model_copy(update={"points": broken})
    found = Comparison(
        slo=SLO({"p99": 25.0}), loads=(Concurrency(64),), deployed=(side,) * 4, candidate=(launch_at((64, 131.0)),) * 4
    )
    assert found.deployed_load == Concurrency(8)
    assert found.gain
    assert found.gain.value == pytest.approx(1.31)


def test_half_of_the_load_will_do_where_a_test_is_sure_of_that_one_only() -> None:
    points = launch_at((8, 150.0), over=20).points + launch_at((4, 140.0)).points
    side = launch_at((8, 150.0)).model_copy(update={"points": points})
    found = Comparison(
        slo=SLO({"p99": 25.0}),
        loads=(Concurrency(8), Concurrency(4)),
        deployed=(launch_at((2, 100.0), (8, 100.0)),) * 4,
        candidate=(side,) * 4,
    )
    assert (found.load, found.verdict) == (Concurrency(4), Verdict.HOLDS)
    assert found.gain
    assert found.gain.value == pytest.approx(1.4)
    assert decide(found, min_gain=0.03).act


def test_requests_that_fail_are_no_gain() -> None:
    found = comparison(FOUR).model_copy(update={"candidate": (launch_at((8, 130.0), errors=3),) * 4})
    assert found.verdict is Verdict.BREAKS


def test_looking_often_makes_the_interval_wider() -> None:
    pairs = [(interval(ratio, 0.001), interval(1.0, 0.001)) for ratio in FOUR]
    once, often = paired_ratio(pairs), sequential_ratio(pairs)
    assert often.value == pytest.approx(once.value)
    assert often.low < once.low < once.high < often.high


def test_who_looks_at_each_look_acts_wrongly_in_few_cases() -> None:
    """No gain, launches that differ by 5 %, a gate at 0: how often does it act at any look?"""
    dice = random.Random(7)  # noqa: S311 (no secret)
    acted = 0
    for _ in range(400):
        ratios = [dice.lognormvariate(0.0, 0.05) for _ in range(10)]
        acted += any(
            sequential_ratio([(interval(ratio, 0.001), interval(1.0, 0.001)) for ratio in ratios[:look]]).low > 1
            for look in (4, 6, 8, 10)
        )
    assert acted / 400 <= 0.025 + 0.015


def test_a_test_of_one_of_two_loads_asks_for_more() -> None:
    """600 requests in time are enough for one load, and too few for one of two that would do."""
    one = comparison(FOUR).model_copy(update={"candidate": (launch_at((8, 130.0), (4, 120.0), requests=150),) * 4})
    two = one.model_copy(update={"loads": (Concurrency(8), Concurrency(4))})
    assert (one.verdict, two.verdict) == (Verdict.HOLDS, Verdict.OPEN)


def slowed(side: PairedLaunch, factor: float) -> PairedLaunch:
    """A launch whose latencies are so many times as high, none of them over the limit."""
    (told,) = side.points
    latency_ms = {name: each.times(factor) for name, each in told.latency_ms.items()}
    return PairedLaunch(points=(told.model_copy(update={"latency_ms": latency_ms}),))


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [
        ([1.5, 1.5, 1.5, 1.5], Verdict.HOLDS),  # 15 ms, and the limit is 25 ms
        ([2.4, 2.4, 2.4, 2.4], Verdict.OPEN),  # 24 ms each: of others one may be slower by as much
        ([1.2, 1.7, 1.4, 2.1], Verdict.OPEN),  # no request was over, but launches differ
    ],
)
def test_launches_that_differ_leave_open_what_others_do(factors: list[float], verdict: Verdict) -> None:
    found = comparison(FOUR)
    sides = tuple(slowed(side, factor) for side, factor in zip(found.candidate, factors, strict=True))
    found = found.model_copy(update={"candidate": sides})
    assert found.verdict is verdict
    if verdict is Verdict.OPEN:
        assert ", but launches differ too much; 1.3" in decide(found, min_gain=0.03).reason


@pytest.mark.slow
def test_of_candidates_just_at_the_limit_hardly_any_is_deployed_and_of_others_most() -> None:
    assert picks.let_through(25, noise=0.08).share == 0
    assert picks.let_through(10, noise=0.04, room=0.3).share >= 0.9


@pytest.mark.statistics
@pytest.mark.timeout(600)
@pytest.mark.parametrize("noise", [0.0, 0.04, 0.08])
def test_of_many_candidates_just_at_the_limit_one_in_a_hundred_is_deployed_at_most(noise: float) -> None:
    assert picks.let_through(300, noise).share <= 0.01
