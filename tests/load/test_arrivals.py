from __future__ import annotations

from itertools import islice

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from tuner.core.loads import Concurrency, OpenLoop, Ramp, Replay, RequestRate
from tuner.load.arrivals import arrivals
from tuner.load.drivers import Offer


def due_s(load: OpenLoop, count: int | None = None, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.array(list(islice(arrivals(load, seed), count)), dtype=np.int64) / 1e9


def test_a_constant_rate_has_gaps_that_are_all_alike() -> None:
    assert list(islice(arrivals(RequestRate(200, "constant"), 0), 5)) == [
        0,
        5_000_000,
        10_000_000,
        15_000_000,
        20_000_000,
    ]
    due = due_s(RequestRate(3, "constant"), 1000)
    # To the nanosecond, however many there were before.
    assert np.abs(due - np.arange(1000) / 3).max() < 1e-9


@pytest.mark.parametrize("per_s", [0.5, 300.0, 40_000.0])
def test_poisson_arrivals_have_exponential_gaps(per_s: float) -> None:
    due = due_s(RequestRate(per_s), 20_000)
    gaps = np.diff(due, prepend=0)
    assert gaps.mean() == pytest.approx(1 / per_s, rel=0.03)
    assert stats.kstest(gaps, stats.expon(scale=1 / per_s).cdf).pvalue > 0.01
    # One gap says nothing of the next.
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03


def test_poisson_arrivals_are_as_the_seed_says() -> None:
    first, again, other = (due_s(RequestRate(100), 50, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()


@pytest.mark.parametrize(("start", "end"), [(0, 1000), (1000, 0), (200, 800), (500, 500)])
def test_a_ramp_has_as_many_requests_as_its_rate_adds_up_to(start: float, end: float) -> None:
    """At any moment, with requests that are evenly spread over the rate."""
    due = due_s(Ramp(start, end, 4, "constant"))
    assert len(due) == (start + end) / 2 * 4
    at = np.linspace(0.1, 3.9, 20)
    meant = start * at + (end - start) / 4 * at**2 / 2
    assert np.abs(np.searchsorted(due, at) - meant).max() <= 1
    assert 0 <= due[0] <= due[-1] < 4


def test_a_poisson_ramp_has_the_rate_of_its_moment() -> None:
    ramp = Ramp(100, 5000, 10)
    due = due_s(ramp)
    # With time stretched by the integrated rate, it is a plain Poisson process.
    units = 100 * due + 490 * due**2 / 2
    assert stats.kstest(np.diff(units, prepend=0), stats.expon.cdf).pvalue > 0.01
    assert len(due) == pytest.approx(25_500, abs=4 * 25_500**0.5)
    assert due[-1] < 10


def test_a_ramp_over_nothing_is_empty() -> None:
    assert list(arrivals(Ramp(0, 0, 5), 0)) == []


def test_a_recording_is_replayed_as_it_was() -> None:
    assert list(arrivals(Replay("test", (0, 5, 5, 9)), 0)) == [0, 5, 5, 9]


def test_a_recording_with_a_period_begins_anew() -> None:
    load = Replay("test", (1, 5), period_ns=10)
    assert list(islice(arrivals(load, 0), 6)) == [1, 5, 11, 15, 21, 25]
    assert load.level == pytest.approx(2e8)


@pytest.mark.parametrize(
    "load", [RequestRate(1000), RequestRate(700, "constant"), Ramp(10, 3000, 1), Ramp(3000, 0, 1, "constant")]
)
def test_arrivals_never_go_back(load: OpenLoop) -> None:
    due = due_s(load, 1000)
    assert (np.diff(due) >= 0).all()
    assert due[0] >= 0


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("load", [RequestRate(1000), Replay("test", tuple(range(97)))])
def test_workers_share_one_schedule(load: OpenLoop, workers: int) -> None:
    shares = [list(islice(Offer(load, 3, worker, workers, 1000).due_ns(), 50)) for worker in range(workers)]
    whole = [1000 + due for due in islice(arrivals(load, 3), 50 * workers)]
    for worker, share in enumerate(shares):
        assert share == whole[worker::workers][:50]


@pytest.mark.parametrize(
    ("requests", "workers", "split"), [(7, 1, [7]), (7, 2, [4, 3]), (7, 4, [2, 2, 2, 1]), (8, 4, [2] * 4)]
)
def test_workers_share_a_concurrency(requests: int, workers: int, split: list[int]) -> None:
    assert [Offer(Concurrency(requests), 0, worker, workers, 0).concurrency for worker in range(workers)] == split


def test_a_closed_loop_has_no_schedule_and_an_open_one_no_concurrency() -> None:
    with pytest.raises(TypeError):
        next(Offer(Concurrency(1), 0, 0, 1, 0).due_ns())
    assert Offer(RequestRate(1), 0, 0, 1, 0).concurrency is None
