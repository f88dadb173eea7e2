from __future__ import annotations

import pytest
from support.builders import point

from tuner.core.loads import Load, Ramp, Replay, RequestRate
from tuner.measure.again import Again
from tuner.measure.doubts import Doubt, Gate
from tuner.measure.points import OperatingPoint


def doubtful(*gates: Gate, throughput: float = 100.0) -> OperatingPoint:
    doubts = tuple(Doubt(gate=gate, reason=gate.words) for gate in gates)
    return point(4, throughput).model_copy(update={"doubts": doubts})


def test_a_sound_point_is_measured_once() -> None:
    assert not Again().pays(doubtful())


def test_the_one_with_fewer_doubts_is_kept_and_knows_those_about_the_other() -> None:
    worse, better = doubtful(Gate.DRIFT, Gate.FAILURES), doubtful(Gate.FAILURES, throughput=90)
    for first, second in ((worse, better), (better, worse)):
        kept = Again().better(first, second)
        assert (kept.throughput, kept.doubts, kept.discarded) == (better.throughput, better.doubts, worse.doubts)


def test_of_two_alike_the_second_is_kept() -> None:
    first, second = doubtful(Gate.DRIFT), doubtful(Gate.DRIFT, throughput=90)
    assert Again().better(first, second).throughput == second.throughput


def test_what_fails_twice_at_one_level_is_not_measured_again_at_the_next() -> None:
    again = Again()
    assert again.pays(doubtful(Gate.FAILURES))
    again.better(doubtful(Gate.FAILURES, Gate.DRIFT), doubtful(Gate.FAILURES))
    assert not again.pays(doubtful(Gate.FAILURES))
    # Drift has gone that time, so it may go again.
    assert again.pays(doubtful(Gate.DRIFT))
    assert again.pays(doubtful(Gate.FAILURES, Gate.DRIFT))


@pytest.mark.parametrize(
    ("load", "pays"), [(RequestRate(5), True), (Replay("day", (0, 1)), False), (Replay("day", (0, 1), 2), True)]
)
def test_a_load_that_ends_by_itself_is_offered_once(load: Load, pays: bool) -> None:  # noqa: FBT001 (a parameter)
    assert Again().pays(doubtful(Gate.DRIFT).model_copy(update={"load": load})) is pays
    assert not Again().pays(doubtful(Gate.DRIFT).model_copy(update={"load": Ramp(1, 2, 3)}))


def test_what_took_long_is_not_done_twice() -> None:
    assert not Again().pays(doubtful(Gate.DRIFT).model_copy(update={"window_s": 300.0}))
