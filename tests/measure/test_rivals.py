from __future__ import annotations

import pytest
from support.builders import interval

from tuner.measure.rivals import NOBODY, Rivals

RIVALS = Rivals(((500.0, 5.0), (1_000.0, 20.0)))


@pytest.mark.parametrize(
    ("throughput", "latency_ms", "beaten"),
    [(350, 10, True), (750, 30, True), (850, 30, False), (600, 21, False), (400, 5.2, False), (2_000, 100, False)],
)
def test_who_has_less_throughput_at_a_higher_latency_is_beaten(
    throughput: float, latency_ms: float, *, beaten: bool
) -> None:
    assert RIVALS.beat(interval(throughput), interval(latency_ms)) is beaten


def test_who_may_yet_be_as_good_is_not_beaten() -> None:
    assert not RIVALS.beat(interval(400, share=0.2), interval(10))
    assert not RIVALS.beat(interval(400), interval(10, share=0.5))


def test_nobody_beats_anybody() -> None:
    assert not NOBODY.beat(interval(1), interval(1_000))
