"""Which finalists are launched next; no server and no clock is needed."""

from __future__ import annotations

import pytest
from support.builders import point, trial

from tuner.core.loads import Concurrency
from tuner.core.objectives import THROUGHPUT
from tuner.core.slo import NO_LIMIT
from tuner.recommend.finals import Finals
from tuner.recommend.speed import Speed
from tuner.recommend.verification import Verification

TRIALS = [trial(0, point(1, 100, 10)), *(trial(n, point(8, per_s, 12)) for n, per_s in ((1, 300), (2, 290), (3, 120)))]


def due(
    *verified: Verification, expected: dict[int, Speed] | None = None, launches: int = 100
) -> tuple[list[int], bool] | None:
    """The trials of the next round, and whether it chooses, if there is time for so many launches."""
    finals = Finals(TRIALS, NO_LIMIT, THROUGHPUT, None, expected or {}, verified)
    found = finals.next_round(lambda count: count <= launches)
    return (sorted({finalist.number for finalist, _ in found.due}), found.choosing) if found else None


def launched(number: int, *per_s: float, choosing: int, first: int = 1) -> Verification:
    """Rounds of a trial, at the load of the search."""
    load = 8 if number else 1
    return Verification(
        trial=number,
        load=Concurrency(load),
        rounds=tuple(point(load, each, 12) for each in per_s),
        numbers=tuple(range(first, first + len(per_s))),
        choosing=choosing,
    )


def test_those_that_may_be_the_best_are_launched_first() -> None:
    assert due() == ([1, 2], True)


def test_what_a_model_of_all_trials_expects_counts() -> None:
    assert due(expected={3: Speed(0.9, 0.1), 2: Speed(-1.0, 0.05)}) == ([1, 3], True)


def test_when_time_is_short_the_first_one_is_confirmed() -> None:
    assert due(launches=6) == ([0, 1], False)


def test_a_clear_winner_is_confirmed_beside_the_baseline() -> None:
    two = [launched(1, 300, 305, 298, 301, choosing=4), launched(2, 200, 205, 198, 201, choosing=4)]
    assert due(*two) == ([0, 1], False)


@pytest.mark.parametrize(
    ("confirming", "expected"),
    [([200, 205, 198], ([0, 2], False)), ([300, 305, 298], None)],
)
def test_one_that_falls_behind_while_it_is_confirmed_makes_way(
    confirming: list[float], expected: tuple[list[int], bool] | None
) -> None:
    baseline = launched(0, 100, 101, 99, choosing=0)
    assert due(launched(1, *confirming, choosing=0), baseline) == expected
