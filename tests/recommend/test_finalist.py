from __future__ import annotations

import math

import pytest
from support.builders import point, trial
from support.nvml import GIB

from tuner.core.loads import Concurrency
from tuner.core.slo import NO_LIMIT, SLO, Percentile
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.points import OperatingPoint
from tuner.recommend.finalist import MOST_ROUNDS, Finalist, FinalistStatus, is_decidable, is_decided
from tuner.recommend.shortlist import ShortlistEntry
from tuner.recommend.speed import Speed, Spread
from tuner.stats.slo_verdict import SLOTest

LIMIT = SLO({"p99": 25.0})
LOAD = Concurrency(8)
CURVE = (point(4, 200, 10), point(8, 300, 20), point(16, 400, 40))


def measured(p99: float, requests: int, over: dict[Percentile, int]) -> OperatingPoint:
    """A round with as many requests over a limit of 25 ms, by percentile."""
    limits = tuple(
        SLOTest(percentile=percentile, limit_ms=25.0, requests=requests, over=count, design_effect=1)
        for percentile, count in over.items()
    )
    return point(8, 300, p99).model_copy(update={"limits": limits})


def after(*rounds: OperatingPoint, slo: SLO = LIMIT, choosing: int = 0) -> Finalist:
    """A finalist with these rounds, that gives 300/s and 20 ms at concurrency 8."""
    finalist = Finalist(ShortlistEntry(trial(1), CURVE, slo))
    for number, each in enumerate(rounds, 1):
        finalist.add(each.load, number, each, choosing=number <= choosing)
    return finalist


def test_its_speed_is_relative_to_its_curve() -> None:
    finalist = after(point(16, 360, 50), point(12, 400, 30), point(8, 330, 16))
    # What was measured far from the last load says little, as the curve may be wrong.
    assert finalist.merit_speeds == pytest.approx([math.log(400 / 355), math.log(1.1)], abs=2e-3)
    assert finalist.latency_speeds[-1] == pytest.approx(math.log(20 / 16))
    assert after(point(8, 330, 16), slo=NO_LIMIT).latency_speeds == []


def test_one_launch_under_two_loads_is_one_launch() -> None:
    finalist = Finalist(ShortlistEntry(trial(1), CURVE, LIMIT))
    finalist.add(LOAD, 1, point(8, 330, 20), choosing=True)
    finalist.add(Concurrency(10), 1, point(10, 360, 25), choosing=True)
    assert len(finalist.launches) == len(finalist.merit_speeds) == finalist.choosing == 1


def test_its_load_keeps_a_margin_that_grows_with_what_is_not_known() -> None:
    finalist = after()
    loads = []
    for deviation in (0.0, 0.1, 0.2):
        finalist.expect(Speed(), Speed(0.0, deviation), Spread(0.02, 50))
        loads.append(finalist.load(2.0))
    assert [load and load.requests for load in loads] == [9, 8, 6]
    finalist.expect(Speed(), Speed(math.log(1.3), 0.0), Spread(0.02, 50))
    assert finalist.load(2.0) == Concurrency(12)


def test_the_next_load_is_no_great_step_from_the_last_one() -> None:
    finalist = after(point(8, 300, 20))
    finalist.expect(Speed(), Speed(math.log(3), 0.0), Spread(0.02, 50))
    assert finalist.load(0.0) == Concurrency(12)
    finalist.expect(Speed(), Speed(-math.log(9), 0.0), Spread(0.02, 50))
    assert finalist.load(0.0) == Concurrency(4)


def test_a_load_that_breaks_the_slo_makes_way_for_less() -> None:
    finalist = after(measured(60, 5_000, {"p99": 2_000}))
    assert finalist.status(LOAD) is FinalistStatus.BREAKS_SLO
    finalist.expect(Speed(), Speed(), Spread(0.02, 50))
    assert finalist.load(0.0) == Concurrency(7)


def test_a_load_nearly_the_same_as_one_that_was_launched_is_that_one() -> None:
    curve = (point(40, 200, 10), point(80, 300, 20), point(160, 400, 40))
    finalist = Finalist(ShortlistEntry(trial(1), curve, LIMIT))
    finalist.add(Concurrency(94), 1, point(94, 320, 24), choosing=True)
    finalist.expect(Speed(), Speed(), Spread(0.02, 50))
    best = finalist.load(0.0)
    assert best is not None
    assert 94 < best.requests < 102
    assert finalist.load(0.0, steady=True) == Concurrency(94)
    finalist.expect(Speed(), Speed(-0.3, 0.0), Spread(0.02, 50))
    assert finalist.load(0.0, steady=True) == finalist.load(0.0)


def test_one_whose_requests_fail_has_failed_under_every_load() -> None:
    failed = after(point(8, errors=3))
    assert failed.verifications[LOAD].failure == "3 requests failed: UNAVAILABLE: gone"
    assert failed.status(LOAD) is FinalistStatus.FAILED
    assert failed.load(0.0) is None


@pytest.mark.parametrize(
    ("p99", "over", "rounds", "expected"),
    [
        (26.0, 5, 2, FinalistStatus.REMAINS),  # two launches say too little of the next
        (26.0, 5, 3, FinalistStatus.NEAR_LIMIT),
        (24.0, 5, 3, FinalistStatus.REMAINS),
        (24.0, 15, 3, FinalistStatus.NEAR_LIMIT),  # more than 1 % of the requests
        (24.0, 9, MOST_ROUNDS - 1, FinalistStatus.REMAINS),
        (24.0, 9, MOST_ROUNDS, FinalistStatus.NEAR_LIMIT),  # no test shows that it holds
        (24.0, 0, MOST_ROUNDS, FinalistStatus.REMAINS),
    ],
)
def test_a_load_above_the_limit_in_the_mean_or_never_shown_to_hold_it_is_eliminated(
    p99: float, over: int, rounds: int, expected: FinalistStatus
) -> None:
    assert after(*[measured(p99, 1_000, {"p99": over})] * rounds).status(LOAD) is expected


def test_each_of_several_limits_must_be_shown() -> None:
    slo = SLO({"p90": 25.0, "p99": 25.0})
    half = after(*[measured(24.0, 1_000, {"p90": 0, "p99": 9})] * 3, slo=slo).verifications[LOAD]
    assert not is_decided(half)
    assert is_decided(after(*[measured(24.0, 1_000, {"p90": 0, "p99": 0})] * 3, slo=slo).verifications[LOAD])
    # Of p90 a test can tell after 20 requests a round, of p99 it cannot.
    assert not is_decidable(after(measured(12, 20, {"p90": 0, "p99": 0}), slo=slo).verifications[LOAD])
    assert is_decidable(after(measured(12, 500, {"p90": 0, "p99": 0}), slo=slo).verifications[LOAD])


@pytest.mark.parametrize(
    ("rounds", "requests", "expected"),
    [
        (2, 60, False),  # eight rounds are 480 requests, of which 556 are needed
        (2, 75, True),
        (3, 65, True),
    ],
)
def test_no_more_rounds_are_counted_on_than_there_may_be(*, rounds: int, requests: int, expected: bool) -> None:
    assert is_decidable(after(*[measured(12.0, requests, {"p99": 0})] * rounds).verifications[LOAD]) is expected


@pytest.mark.parametrize(("taken", "failed"), [(2 * GIB, False), (2 * GIB + 1, True)])
def test_it_may_take_as_much_memory_as_the_limit(*, taken: int, failed: bool) -> None:
    finalist = Finalist(ShortlistEntry(trial(1), CURVE, NO_LIMIT), max_gpu_memory=2 * GIB)
    view = GpuView(gpu="GPU 0", uuid="GPU-a", run_memory_bytes=taken, idle_memory_bytes=0)
    finalist.add(LOAD, 1, point(8).model_copy(update={"gpu": GpuUsage(gpus=(view,))}), choosing=False)
    assert (finalist.verifications[LOAD].failure is not None) is failed
