from __future__ import annotations

import pytest
from support.builders import point, trial

from tuner.core.loads import Concurrency
from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.recommend.not_chosen import NotChosen, WhyNot, not_chosen
from tuner.recommend.recommend import recommend
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import SLOTest

LIMIT = SLO.parse(["p99=25ms"])


def _again(number: int, *rates: float, p99: float = 20, over: int = 0, failure: str | None = None) -> Verification:
    test = SLOTest(percentile="p99", limit_ms=25.0, requests=1_000, over=over, design_effect=1)
    rounds = tuple(point(8, rate, p99).model_copy(update={"limits": (test,)}) for rate in rates)
    return Verification(trial=number, load=Concurrency(8), rounds=rounds, choosing=0, failure=failure)


def _told(trials: list[TrialResult], verified: list[Verification]) -> tuple[NotChosen, ...]:
    return not_chosen(trials, verified, recommend(trials, LIMIT, verified))


@pytest.mark.parametrize(
    ("again", "why", "detail"),
    [
        ([], WhyNot.NO_TIME, ""),
        ([_again(1, failure="crashed: gone")], WhyNot.FAILED, "crashed: gone"),
        ([_again(1, 140, 142, p99=30)], WhyNot.BREAKS, ""),
        ([_again(1, 140, 142, over=40)], WhyNot.BREAKS, ""),
        ([_again(1, 105, 107, p99=24, over=9)], WhyNot.UNSURE, ""),
    ],
)
def test_what_looked_better_is_told(again: list[Verification], why: WhyNot, detail: str) -> None:
    trials = [trial(0, point(8, 100, 20)), trial(1, point(4, 120, 10), point(8, 150, 20), point(16, 200, 40))]
    (told,) = _told(trials, [_again(0, 100, 100, 100), *again])
    assert (told.searched.trial.number, told.searched.point.throughput.value) == (1, 150)
    assert (told.why, told.detail) == (why, detail)


def test_what_gave_less_when_it_was_measured_again_is_not_told() -> None:
    trials = [trial(0, point(8, 100, 20)), trial(1, point(8, 150, 20)), trial(2, point(8, 104, 20))]
    assert _told(trials, [_again(0, 100, 100, 100), _again(1, 95, 96, 97)]) == ()


def test_where_nothing_was_verified_the_best_is_what_looked_best() -> None:
    assert _told([trial(0, point(8, 100, 20)), trial(1, point(8, 150, 20))], []) == ()


def test_what_broke_the_slo_is_told_where_the_best_was_measured_once_too() -> None:
    trials = [trial(0, point(8, 100, 20)), trial(1, point(4, 120, 10), point(8, 150, 20))]
    (told,) = _told(trials, [_again(1, 140, 142, p99=30)])
    assert (told.searched.point.throughput.value, told.why) == (150, WhyNot.BREAKS)


def test_nothing_that_was_not_verified_waits_for_it_where_the_best_was_not_either() -> None:
    trials = [trial(0, point(8, 100, 20)), trial(1, point(8, 150, 20)), trial(2, point(4, 120, 10), point(8, 130, 24))]
    assert {each.searched.trial.number for each in _told(trials, [_again(1, 140, 142, p99=30)])} == {1}


def test_the_most_promising_come_first_and_a_few_are_enough() -> None:
    trials = [trial(0, point(8, 100, 20)), *(trial(n, point(8, 110 + n, 20)) for n in range(1, 6))]
    assert [each.searched.trial.number for each in _told(trials, [_again(0, 100, 100, 100)])] == [5, 4, 3]


def test_what_breaks_the_slo_under_less_load_was_struck_off() -> None:
    trials = [trial(0, point(8, 100, 20)), trial(1, point(8, 150, 20), point(10, 180, 22))]
    (told,) = _told(trials, [_again(0, 100, 100, 100), _again(1, 140, 142, p99=30)])
    assert (told.searched.point.load, told.why) == (Concurrency(10), WhyNot.BREAKS)
