from __future__ import annotations

from tuner.measure.quality_warnings import QualityCheck, QualityWarning, warnings_together

LITTLE = QualityWarning(check=QualityCheck.LITTLES_LAW, reason="too few")
DRIFT, MORE_DRIFT = (
    QualityWarning(check=QualityCheck.DRIFT, reason="drifts"),
    QualityWarning(check=QualityCheck.DRIFT, reason="drifts more"),
)


def test_each_gate_has_a_name_for_people() -> None:
    assert len({check.words for check in QualityCheck}) == len(QualityCheck)


def test_of_each_gate_the_first_doubt_is_told_with_the_rounds_that_it_failed_in() -> None:
    together = warnings_together([(), (LITTLE, DRIFT), (MORE_DRIFT,)])
    assert [(warning.check, warning.reason) for warning in together] == [
        (QualityCheck.LITTLES_LAW, "too few (in 1 of 3 rounds)"),
        (QualityCheck.DRIFT, "drifts (in 2 of 3 rounds)"),
    ]


def test_a_single_measurement_is_no_round() -> None:
    assert warnings_together([(LITTLE, DRIFT)]) == (LITTLE, DRIFT)
    assert warnings_together([(), ()]) == ()
