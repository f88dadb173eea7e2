from __future__ import annotations

from tuner import deadlines


def test_a_large_model_gets_longer_to_load() -> None:
    assert deadlines.first_launch_s(10**10) >= deadlines.first_launch_s(0) + 100


def test_what_the_baseline_took_bounds_the_candidates() -> None:
    assert 2.0 < deadlines.launch_s(2.0) < 100
    assert deadlines.launch_s(60.0) >= 600


def test_a_slow_model_is_not_taken_for_one_that_hangs() -> None:
    assert deadlines.answer_s(0.001) < 10
    assert deadlines.answer_s(2.0) >= 200
