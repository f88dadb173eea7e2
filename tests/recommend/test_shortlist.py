from __future__ import annotations

import pytest
from support.builders import point, trial

from tuner.core.errors import Cause
from tuner.core.loads import Concurrency
from tuner.core.slo import SLO
from tuner.recommend.shortlist import ShortlistEntry, shortlist

LIMIT = SLO.parse(["p99=25ms"])
TRIALS = [
    trial(0, point(1, 100, 10)),
    trial(1, point(8, 300, 20), point(16, 400, 30)),
    trial(2, point(8, 350, 20)),
    trial(3, point(8, 900, 20), failure=Cause.CRASHED),
    trial(4, point(8, 900, 90)),
]


def test_each_trial_has_one_the_best_first() -> None:
    assert [(each.trial.number, each.load, each.throughput) for each in shortlist(TRIALS, LIMIT)] == [
        (2, Concurrency(8), 350),
        (1, Concurrency(8), 300),
        (0, Concurrency(1), 100),
    ]
    assert [each.trial.number for each in shortlist(TRIALS, SLO())] == [4, 1, 2, 0]


def test_less_load_gives_what_the_curve_says_there() -> None:
    # Nine tenths of the throughput that the curve says, and twice the latency.
    lower = ShortlistEntry(TRIALS[1], Concurrency(16), 360, {"p99": 60}).lower(0.75)
    assert lower is not None
    assert lower.load == Concurrency(12)
    assert lower.throughput == pytest.approx(0.9 * 350)
    # By Little's law: three quarters of the requests, at 350/400 of the throughput.
    assert lower.latency_ms == {"p99": pytest.approx(60 * 0.75 / (350 / 400))}


def test_below_the_curve_throughput_falls_with_the_load() -> None:
    lower = _contender(1, 8).lower(0.5)
    assert lower is not None
    assert lower.load == Concurrency(4)
    assert lower.throughput == pytest.approx(150)
    assert lower.latency_ms["p99"] == pytest.approx(20)


def test_a_share_near_one_is_at_least_one_request_less() -> None:
    lower = _contender(1, 8).lower(0.99)
    assert lower is not None
    assert lower.load == Concurrency(7)


def test_below_one_request_there_is_nothing() -> None:
    assert _contender(0, 1).lower(0.5) is None


def _contender(number: int, load: int) -> ShortlistEntry:
    (found,) = [each for each in shortlist(TRIALS, LIMIT) if (each.trial.number, each.load.requests) == (number, load)]
    return found
