from __future__ import annotations

import pytest

from tuner.core.precision import DEFAULT, Precision
from tuner.measure.rules import LevelRules

RULES = LevelRules(throughput_precision=0.06, latency_precision=0.2, max_s=2.0)


def test_the_default_precision_changes_nothing() -> None:
    assert RULES.to(DEFAULT) == RULES


def test_half_as_wide_an_interval_takes_four_times_as_long() -> None:
    precise = RULES.to(Precision(0.015, 0.05))
    assert precise.throughput_precision == pytest.approx(0.03)
    assert precise.latency_precision == pytest.approx(0.1)
    assert precise.max_s == pytest.approx(8)
    assert precise.slow_max_s == RULES.slow_max_s


def test_the_more_demanding_of_both_decides_how_long() -> None:
    assert RULES.to(Precision(0.03, 0.05)).max_s == pytest.approx(8)
    assert RULES.to(Precision(0.3, 0.3)).max_s == RULES.max_s


def test_nobody_waits_for_ever() -> None:
    very = RULES.to(Precision(0.0001, 0.1))
    assert very.max_s == pytest.approx(72)
    assert very.slow_max_s == very.max_s
