from __future__ import annotations

import pytest
from support.builders import point, trial

from tuner.load.loads import Concurrency
from tuner.search.front import usable_points
from tuner.search.recommend import recommend
from tuner.search.verification import Verification
from tuner.slo import SLO

THREE = Verification(trial=1, load=Concurrency(8), rounds=tuple(point(8, rate, 20) for rate in (300, 330, 360)))


def test_rounds_are_told_together_by_their_mean_and_spread() -> None:
    together = THREE.point
    assert together is not None
    assert together.throughput.value == pytest.approx(330)
    # t(0.975, 2) x 30 / sqrt(3)
    assert together.throughput.high - 330 == pytest.approx(4.303 * 30 / 3**0.5, rel=1e-3)
    assert together.requests == 1500
    assert together.server is not None
    assert together.server.executions == 750
    assert dict(together.server.batches) == {2: (750, 1.0)}


def test_rounds_that_agree_are_no_surer_than_each_of_them() -> None:
    together = Verification(trial=1, load=Concurrency(8), rounds=(point(8, 300, 20), point(8, 300, 20))).point
    assert together is not None
    assert together.throughput.high - 300 == pytest.approx(300 * 0.02 / 2**0.5)


def test_what_is_verified_takes_the_place_of_what_was_measured() -> None:
    trials = [trial(0, point(1, 100, 10)), trial(1, point(8, 500, 20), point(4, 200, 15))]
    found = recommend(trials, SLO(), [THREE])
    assert found.best is not None
    assert found.best.verified
    assert found.best.point.throughput.value == pytest.approx(330)
    assert len(found.front) == 3


def test_what_failed_when_verified_is_struck_off() -> None:
    trials = [trial(0, point(1, 100, 10)), trial(1, point(8, 500, 20), point(4, 200, 15))]
    failed = Verification(trial=1, load=Concurrency(8), rounds=THREE.rounds[:1], failure="crashed: it is gone")
    assert failed.point is None
    assert [each.point.load for each in usable_points(trials, [failed])] == [Concurrency(1), Concurrency(4)]
