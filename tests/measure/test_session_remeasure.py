from __future__ import annotations

import pytest
from support.builders import point

from tuner.core.loads import Load, Ramp, Replay, RequestRate
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.measure.session import RemeasurePolicy


def suspect(*checks: QualityCheck, throughput: float = 100.0) -> OperatingPoint:
    warnings = tuple(QualityWarning(check=check, reason=check.words) for check in checks)
    return point(4, throughput).model_copy(update={"warnings": warnings})


def test_a_sound_point_is_measured_once() -> None:
    assert not RemeasurePolicy().pays(suspect())


def test_the_one_with_fewer_warnings_is_kept_and_knows_those_about_the_other() -> None:
    worse, better = suspect(QualityCheck.DRIFT, QualityCheck.FAILURES), suspect(QualityCheck.FAILURES, throughput=90)
    for first, second in ((worse, better), (better, worse)):
        kept = RemeasurePolicy().better(first, second)
        assert (kept.throughput, kept.warnings, kept.discarded) == (better.throughput, better.warnings, worse.warnings)


def test_of_two_alike_the_second_is_kept() -> None:
    first, second = suspect(QualityCheck.DRIFT), suspect(QualityCheck.DRIFT, throughput=90)
    assert RemeasurePolicy().better(first, second).throughput == second.throughput


def test_what_fails_twice_at_one_level_is_not_measured_again_at_the_next() -> None:
    policy = RemeasurePolicy()
    assert policy.pays(suspect(QualityCheck.FAILURES))
    policy.better(suspect(QualityCheck.FAILURES, QualityCheck.DRIFT), suspect(QualityCheck.FAILURES))
    assert not policy.pays(suspect(QualityCheck.FAILURES))
    # Drift has gone that time, so it may go again.
    assert policy.pays(suspect(QualityCheck.DRIFT))
    assert policy.pays(suspect(QualityCheck.FAILURES, QualityCheck.DRIFT))


@pytest.mark.parametrize(
    ("load", "pays"), [(RequestRate(5), True), (Replay("day", (0, 1)), False), (Replay("day", (0, 1), 2), True)]
)
def test_a_load_that_ends_by_itself_is_offered_once(load: Load, pays: bool) -> None:  # noqa: FBT001 (a parameter)
    assert RemeasurePolicy().pays(suspect(QualityCheck.DRIFT).model_copy(update={"load": load})) is pays
    assert not RemeasurePolicy().pays(suspect(QualityCheck.DRIFT).model_copy(update={"load": Ramp(1, 2, 3)}))


def test_what_took_long_is_not_done_twice() -> None:
    assert not RemeasurePolicy().pays(suspect(QualityCheck.DRIFT).model_copy(update={"window_s": 300.0}))
