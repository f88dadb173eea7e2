from __future__ import annotations

from tuner.measure.doubts import Doubt, Gate, doubts_together

LITTLE = Doubt(gate=Gate.LITTLES_LAW, reason="too few")
DRIFT, MORE_DRIFT = Doubt(gate=Gate.DRIFT, reason="drifts"), Doubt(gate=Gate.DRIFT, reason="drifts more")


def test_each_gate_has_a_name_for_people() -> None:
    assert len({gate.words for gate in Gate}) == len(Gate)


def test_of_each_gate_the_first_doubt_is_told_with_the_rounds_that_it_failed_in() -> None:
    together = doubts_together([(), (LITTLE, DRIFT), (MORE_DRIFT,)])
    assert [(doubt.gate, doubt.reason) for doubt in together] == [
        (Gate.LITTLES_LAW, "too few (in 1 of 3 rounds)"),
        (Gate.DRIFT, "drifts (in 2 of 3 rounds)"),
    ]


def test_a_single_measurement_is_no_round() -> None:
    assert doubts_together([(LITTLE, DRIFT)]) == (LITTLE, DRIFT)
    assert doubts_together([(), ()]) == ()
