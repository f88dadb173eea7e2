from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from tuner.core.record import Interval


def test_an_interval_in_another_unit() -> None:
    interval = Interval(value=10, low=8, high=14)
    assert interval.times(4) == Interval(value=40, low=32, high=56)
    assert interval.times(4).relative_half_width == interval.relative_half_width == pytest.approx(0.3)


def test_an_interval_by_its_logarithm() -> None:
    assert Interval.within_logs(8.0, math.log(2)) == Interval(value=8.0, low=4.0, high=16.0)
    assert Interval.within_logs(8.0, math.inf, math.log(1.5)) == Interval(value=8.0, low=0.0, high=12.0)


def test_nothing_is_not_known_to_any_share_of_it() -> None:
    assert Interval(value=0, low=0, high=1).relative_half_width == float("inf")


def test_what_may_be_a_thousand_times_as_long_has_a_logarithm_all_the_same() -> None:
    assert Interval(value=10, low=9, high=11).log_half_width == pytest.approx(0.1)
    assert Interval(value=10, low=0, high=20).log_half_width == pytest.approx(1)
    assert 6 < Interval(value=10, low=0, high=10_000).log_half_width < 8
    assert Interval(value=0, low=0, high=1).log_half_width == float("inf")


def test_a_record_stays_what_it_is() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Interval(value=1, low=0, high=2).value = 3  # type: ignore[misc]  # that is the point
    with pytest.raises(ValidationError, match="Extra inputs"):
        Interval.model_validate({"value": 1, "low": 0, "high": 2, "unit": "ms"})
