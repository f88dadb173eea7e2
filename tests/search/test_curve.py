from __future__ import annotations

import pytest
from support.builders import point

from tuner.search.curve import latency_ms_at, throughput_at

CURVE = (point(8, 300, 20), point(16, 400, 30), point(32, 440, 60))


@pytest.mark.parametrize(
    ("level", "throughput", "p99"),
    [(2, 75, 20), (8, 300, 20), (12, 350, 25), (16, 400, 30), (24, 420, 45), (32, 440, 60), (64, 440, 60)],
)
def test_a_curve_is_straight_between_its_points(level: int, throughput: float, p99: float) -> None:
    assert throughput_at(CURVE, level) == pytest.approx(throughput)
    assert latency_ms_at(CURVE, "p99", level) == pytest.approx(p99)
    assert latency_ms_at(CURVE, "p50", level) == pytest.approx(p99 / 2)
