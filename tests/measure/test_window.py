from __future__ import annotations

import numpy as np
import pytest
from support.closed_loop import Batcher, run, samples_of

from tuner.load.protocols import Samples
from tuner.measure.window import steady_window


def batches(size: int, count: int, *, every_ms: float = 10.0, wall_s: float | None = None) -> Samples:
    """Batches that end at equal distance, each answered within a ms and sent when the one before has ended."""
    done = [every_ms * (batch + 1) + mate / size for batch in range(count) for mate in range(size)]
    sent = [max(0.0, every_ms * batch + 1) for batch in range(count) for _ in range(size)]
    return samples_of(sent, done, wall_s or (every_ms * count + 5) / 1e3)


@pytest.mark.parametrize("size", [2, 8, 32])
def test_it_begins_and_ends_between_batches(size: int) -> None:
    window = steady_window(batches(size, 40), size)
    assert len(window) % size == 0
    assert len(window) / window.length_s == pytest.approx(size * 100, rel=0.01)


def test_it_ends_between_batches_although_the_last_one_is_cut_in_two() -> None:
    whole = batches(16, 40)
    count = len(whole) - 9
    wall_s = float(whole.done_ns[count]) / 1e9
    cut = Samples(whole.sent_ns[:count], whole.done_ns[:count], whole.ok[:count], {}, 0.1, wall_s)
    window = steady_window(cut, 16)
    assert len(window) % 16 == 0
    assert len(window) / window.length_s == pytest.approx(1_600, rel=0.01)


def test_the_first_round_is_left_out() -> None:
    samples = batches(8, 40)
    assert len(steady_window(samples, 8)) <= len(samples) - 8
    assert steady_window(samples, 8).start_ns >= samples.done_ns[7]


def test_a_slow_beginning_is_left_out() -> None:
    cold = Batcher(5.0, warm_up=8.0, warm_up_ms=300)
    window = steady_window(run(cold, 4, 1.5, np.random.default_rng(0)), 4)
    assert 150e6 < window.start_ns < 500e6


def test_failures_are_left_out() -> None:
    samples = batches(1, 100)
    ok = np.arange(100) % 2 == 0
    window = steady_window(Samples(samples.sent_ns, samples.done_ns, ok, {"INTERNAL: no": 50}, 0.1, 1.0), 1)
    assert set(window.done_ns.tolist()) <= set(samples.done_ns[ok].tolist())
    assert len(window) / window.length_s == pytest.approx(50, rel=0.05)


def test_less_than_two_rounds_are_all_taken_from_the_begin_of_the_load() -> None:
    samples = batches(16, 1, every_ms=2_000)
    window = steady_window(samples, 16)
    assert len(window) == 16
    assert window.length_s == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing_is_a_window_too(count: int) -> None:
    window = steady_window(samples_of([1.0] * count, [3.0] * count, 1.0), 4)
    assert len(window) == count
    assert window.length_s > 0
