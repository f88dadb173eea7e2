from __future__ import annotations

import math

import pytest
from support.builders import point, trial
from support.nvml import GIB

from tuner.core.loads import Concurrency
from tuner.core.slo import NO_LIMIT, PERCENTILES, SLO, Percentile
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.recommend.finalist import Finalist, FinalistStatus
from tuner.recommend.search_bias import WINNERS_CURSE, SearchBias
from tuner.recommend.shortlist import ShortlistEntry
from tuner.stats.slo_verdict import SLOTest

LIMIT = SLO({"p99": 25.0})


def entry(p99: float = 12.0, *, searched: bool = True) -> ShortlistEntry:
    """A config that gives 300/s at concurrency 8."""
    latency_ms = dict.fromkeys(PERCENTILES, p99)
    return ShortlistEntry(trial(1, point(8, 300, p99)), Concurrency(8), 300.0, latency_ms, searched)


def measured(p99: float, requests: int, over: dict[Percentile, int]) -> OperatingPoint:
    """A round with as many requests over a limit of 25 ms, by percentile."""
    limits = tuple(
        SLOTest(percentile=percentile, limit_ms=25.0, requests=requests, over=count, design_effect=1)
        for percentile, count in over.items()
    )
    return point(8, 300, p99).model_copy(update={"limits": limits})


def after(*rounds: OperatingPoint, slo: SLO = LIMIT) -> Finalist:
    """A finalist with these rounds."""
    finalist = Finalist(entry(), slo)
    for number, each in enumerate(rounds, 1):
        finalist.add(number, each, choosing=False)
    return finalist


@pytest.mark.parametrize(("searched", "expected"), [(True, 300 * WINNERS_CURSE), (False, 300.0)])
def test_luck_is_expected_of_what_only_the_search_tells(*, searched: bool, expected: float) -> None:
    assert Finalist(entry(searched=searched), NO_LIMIT).throughput == pytest.approx(expected)


def test_the_same_of_its_latency() -> None:
    again = Finalist(entry(20.0, searched=False), LIMIT)
    again.expect(SearchBias(latency=1.5), 0.0)
    assert again.entry.load == Concurrency(8)
    searched = Finalist(entry(20.0), LIMIT)
    searched.expect(SearchBias(latency=1.5), 0.0)
    assert searched.entry.load.requests < 8


def test_one_whose_requests_fail_has_failed() -> None:
    failed = after(point(8, errors=3))
    assert failed.verification.failure == "3 requests failed: UNAVAILABLE: gone"
    assert failed.status(0.0) is FinalistStatus.FAILED


@pytest.mark.parametrize(
    ("p99", "rounds", "expected"),
    [
        (24.5, 1, FinalistStatus.REMAINS),  # one launch says too little of the next
        (24.5, 2, FinalistStatus.INCONCLUSIVE),
        (20.0, 2, FinalistStatus.REMAINS),
    ],
)
def test_two_rounds_near_the_limit_make_it_doubtful(p99: float, rounds: int, expected: FinalistStatus) -> None:
    # So many over would never show that it holds.
    assert after(*[measured(p99, 2_000, {"p99": 19})] * rounds).status(0.02) is expected


def test_what_a_test_will_show_is_not_doubtful() -> None:
    assert after(*[measured(24.5, 500, {"p99": 1})] * 2).status(0.02) is FinalistStatus.REMAINS


def test_each_of_several_limits_must_be_shown() -> None:
    slo = SLO({"p90": 25.0, "p99": 25.0})
    assert (
        after(*[measured(24.5, 2_000, {"p90": 0, "p99": 19})] * 2, slo=slo).status(0.02) is FinalistStatus.INCONCLUSIVE
    )
    # Of p90 a test can tell after 20 requests a round, of p99 it cannot.
    few = after(measured(12, 20, {"p90": 0, "p99": 0}), slo=slo)
    assert not few.decidable
    assert after(measured(12, 500, {"p90": 0, "p99": 0}), slo=slo).decidable


@pytest.mark.parametrize(
    ("rounds", "requests", "expected"),
    [
        (2, 60, False),  # eight rounds are 480 requests, of which 556 are needed
        (2, 75, True),
        (3, 65, True),
    ],
)
def test_no_more_rounds_are_counted_on_than_there_may_be(*, rounds: int, requests: int, expected: bool) -> None:
    assert after(*[measured(12.0, requests, {"p99": 0})] * rounds).decidable is expected


def test_deviations_are_as_large_as_from_the_true_mean() -> None:
    assert after(point(8, 300, 10)).deviations == ()
    two = after(point(8, 300, 10), point(8, 300, 10 * math.exp(0.2))).deviations
    assert two == pytest.approx([-0.1 * math.sqrt(2), 0.1 * math.sqrt(2)])


@pytest.mark.parametrize(("taken", "failed"), [(2 * GIB, False), (2 * GIB + 1, True)])
def test_it_may_take_as_much_memory_as_the_limit(*, taken: int, failed: bool) -> None:
    finalist = Finalist(entry(), NO_LIMIT, max_gpu_memory=2 * GIB)
    view = GpuView(gpu="GPU 0", uuid="GPU-a", run_memory_bytes=taken, idle_memory_bytes=0)
    finalist.add(1, point(8).model_copy(update={"gpu": GpuUsage(gpus=(view,))}), choosing=False)
    assert (finalist.verification.failure is not None) is failed
