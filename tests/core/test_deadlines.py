from __future__ import annotations

from tuner.core import deadlines


def test_a_large_model_gets_longer_to_load() -> None:
    assert deadlines.first_launch_s(10**10) >= deadlines.first_launch_s(0) + 100


def test_what_the_baseline_took_bounds_the_candidates() -> None:
    assert 2.0 < deadlines.launch_s(2.0) < 100
    assert deadlines.launch_s(60.0) >= 600


def test_a_slow_model_is_not_taken_for_one_that_hangs() -> None:
    assert deadlines.answer_s(0.001) < 10
    assert deadlines.answer_s(2.0) >= 200


def test_who_waits_behind_others_has_their_time_too() -> None:
    assert deadlines.queued_s(5.0, queue=0, service_s=0.02) == 5.0
    # 512 requests of 20 ms on one instance take 10.24 s.
    assert deadlines.queued_s(5.0, queue=512, service_s=0.02) >= 5 + 1.5 * 10.24


def test_a_backlog_is_not_waited_for_without_end() -> None:
    assert deadlines.backlog_s(5.0, queue=600, service_s=0.02) >= 12
    assert deadlines.backlog_s(5.0, queue=10**9, service_s=0.02) == 60
    assert deadlines.backlog_s(200.0, queue=10**9, service_s=0.02) == 200
