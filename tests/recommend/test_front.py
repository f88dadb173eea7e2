from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import point, trial

from tuner.core.errors import Cause
from tuner.recommend.front import TrialPoint, hypervolume, pareto_front, reference_latency_ms, usable_points

_pairs = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=12)


def _points(pairs: list[tuple[int, int]]) -> tuple[TrialPoint, ...]:
    return usable_points([trial(0, *(point(1, throughput, p99) for throughput, p99 in pairs))])


def _values(front: tuple[TrialPoint, ...]) -> list[tuple[float, float]]:
    return [(each.point.throughput.value, each.latency_ms("p99")) for each in front]


def test_the_front_is_what_no_other_beats() -> None:
    front = pareto_front(_points([(100, 5), (90, 6), (200, 10), (200, 12), (300, 40)]), "p99")
    assert _values(front) == [(100, 5), (200, 10), (300, 40)]


@given(_pairs)
def test_every_point_is_on_the_front_or_beaten_by_it(pairs: list[tuple[int, int]]) -> None:
    front = _values(pareto_front(_points(pairs), "p99"))
    assert all(any(t >= throughput and lat <= p99 for t, lat in front) for throughput, p99 in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(front))


def test_points_with_errors_do_not_count() -> None:
    assert usable_points([trial(0, point(1, 100, 5), point(2, 900, 1, errors=3))])[0].point.throughput.value == 100
    assert len(usable_points([trial(0, point(2, 900, 1, errors=3))])) == 0


def test_points_of_a_failed_trial_do_not_count() -> None:
    assert usable_points([trial(0, point(1, 100, 5), failure=Cause.CRASHED)]) == ()


def test_the_hypervolume_is_a_sum_of_rectangles() -> None:
    # 5 ms to 10 ms at 100/s, 10 ms to 20 ms at 200/s; the point at 40 ms is beyond the reference.
    assert hypervolume(_points([(100, 5), (200, 10), (300, 40)]), "p99", 20) == pytest.approx(5 * 100 + 10 * 200)


@given(_pairs, st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_the_hypervolume_never_shrinks(pairs: list[tuple[int, int]], more: tuple[int, int]) -> None:
    before, after = (hypervolume(_points(p), "p99", 60) for p in (pairs, [*pairs, more]))
    assert after >= before


def test_it_ends_at_the_slo_or_at_the_baselines_slowest_point() -> None:
    baseline = trial(0, point(1, 100, 5), point(8, 150, 80))
    assert reference_latency_ms(baseline, "p99", 25.0) == 25.0
    assert reference_latency_ms(baseline, "p99", None) == 80
    assert reference_latency_ms(trial(0), "p99", None) == 0
