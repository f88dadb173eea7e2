from __future__ import annotations

from tuner.load.pauses import pause_ns


def test_the_first_failure_is_retried_at_once_and_a_row_of_them_waits_longer_each_time() -> None:
    assert [pause_ns(failures) // 1_000_000 for failures in range(9)] == [0, 0, 10, 20, 40, 80, 160, 250, 250]
    assert pause_ns(10_000) == 250_000_000
