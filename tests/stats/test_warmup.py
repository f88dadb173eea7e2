from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.stats.warmup import mser5, open_warm_up, warm_up


def latencies(count: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(10, 1, count)


def test_a_slow_beginning_is_cut_where_it_ends() -> None:
    values = latencies(400)
    values[:80] += 20
    assert 80 <= mser5(values) <= 100
    assert 80 <= warm_up(values, 4) <= 100


def test_a_slow_decline_is_cut_for_the_most_part() -> None:
    values = latencies(1_000)
    values[:300] += np.linspace(15, 0, 300)
    assert 150 <= mser5(values) <= 350


def test_steady_values_are_kept() -> None:
    cuts = [mser5(latencies(400, seed)) for seed in range(20)]
    assert np.median(cuts) < 40


def test_at_most_half_is_cut_although_it_never_settles() -> None:
    assert mser5(np.linspace(100, 1, 401)) <= 201


def test_a_stall_in_the_middle_is_no_warm_up() -> None:
    values = latencies(500)
    values[150:158] += 500
    assert mser5(values) > 100
    assert warm_up(values, 8) < 100


def test_the_first_round_goes_in_any_case() -> None:
    assert warm_up(np.full(400, 3.0), 32) == 32
    assert warm_up(np.full(40, 3.0), 32) == 20


@pytest.mark.parametrize("count", [0, 1, 19])
def test_too_few_values_are_not_cut(count: int) -> None:
    assert mser5(latencies(count)) == 0
    assert warm_up(latencies(count), 1) <= 1


@given(st.lists(st.floats(0, 1e6), max_size=200), st.integers(1, 300))
def test_never_more_than_half_is_cut(values: list[float], concurrency: int) -> None:
    assert 0 <= warm_up(np.array(values), concurrency) <= len(values) / 2


def test_a_slow_beginning_of_an_open_loop_is_cut_to_where_latency_is_as_later() -> None:
    values = latencies(400)
    values[:80] += np.linspace(200, 20, 80)
    assert 80 <= open_warm_up(values) <= 85


def test_an_idle_beginning_of_an_open_loop_is_cut_too() -> None:
    values = latencies(1_000) + 20
    values[:100] -= np.linspace(20, 5, 100)
    assert 95 <= open_warm_up(values) <= 110


@pytest.mark.parametrize("place", [50, 100, 200])
def test_a_long_stall_of_an_open_loop_is_no_warm_up(place: int) -> None:
    values = latencies(1_000)
    values[place : place + 300] += np.linspace(500, 0, 300)
    assert mser5(values) > 250
    assert open_warm_up(values) < 50


def test_the_first_requests_of_an_open_loop_go_in_any_case() -> None:
    assert open_warm_up(np.full(400, 3.0)) == 5
    assert open_warm_up(np.full(4, 3.0)) == 2


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_never_more_than_half_of_an_open_loop_is_cut(values: list[float]) -> None:
    assert 0 <= open_warm_up(np.array(values)) <= len(values) / 2
