from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.stats.histogram import Histogram


def histogram(*latency_ms: float) -> Histogram:
    return Histogram.of(np.array(latency_ms, dtype=np.float64))


@given(st.lists(st.floats(0.001, 4e6), min_size=1, max_size=50))
def test_a_latency_lies_within_5_percent_of_its_buckets_upper_end(values: list[float]) -> None:
    found = histogram(*values)
    uppers = np.repeat([upper_ms for upper_ms, _ in found.buckets], [count for _, count in found.buckets])
    ratio = np.sort(values) / uppers
    assert ((ratio > 0.95) & (ratio <= 1)).all()
    assert found.count == len(values)


@given(st.lists(st.floats(0.001, 4e6), min_size=1, max_size=50))
def test_the_mean_is_known_to_3_percent(values: list[float]) -> None:
    assert histogram(*values).mean_ms == pytest.approx(np.mean(values), rel=0.03)


def test_nothing_has_no_mean() -> None:
    assert Histogram().mean_ms is None


def test_buckets_are_in_order_and_none_is_empty() -> None:
    found = histogram(30.0, 1.0, 1.0, 400.0)
    uppers = [upper_ms for upper_ms, _ in found.buckets]
    assert uppers == sorted(uppers)
    assert [count for _, count in found.buckets] == [2, 1, 1]


def test_an_end_belongs_to_its_bucket() -> None:
    ((upper_ms, _),) = histogram(5.0).buckets
    assert histogram(upper_ms).buckets == ((upper_ms, 1),)


def test_what_is_out_of_bounds_is_in_the_outermost_buckets() -> None:
    assert histogram(0.0, 1e-9).buckets == ((0.001, 2),)
    ((upper_ms, count),) = histogram(1e7, 1e12).buckets
    assert upper_ms == pytest.approx(0.001 * 2**32)
    assert count == 2


def test_nothing_is_a_histogram_too() -> None:
    assert histogram() == Histogram()
    assert Histogram().count == 0


def test_histograms_add_up() -> None:
    one, other = [1.0, 2.0, 50.0], [2.0, 0.1]
    assert Histogram.together([histogram(*one), histogram(*other), Histogram()]) == histogram(*one, *other)


def test_they_add_up_after_they_were_stored() -> None:
    one = histogram(*np.geomspace(0.01, 1e4, 100).tolist())
    again = Histogram.model_validate_json(one.model_dump_json())
    assert again == one
    assert [count for _, count in Histogram.together([one, again]).buckets] == [2 * count for _, count in one.buckets]
