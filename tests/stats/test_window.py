from __future__ import annotations

import numpy as np
import pytest
from support.closed_loop import Batcher, run, samples_of
from support.open_loop import run_open

from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate
from tuner.load.protocols import Samples
from tuner.stats.window import Window, ends_by_itself, steady_window, whole_window


def batches(size: int, count: int, *, every_ms: float = 10.0, wall_s: float | None = None) -> Samples:
    """Batches that end at equal distance, each answered within a ms and sent when the one before has ended."""
    done = [every_ms * (batch + 1) + mate / size for batch in range(count) for mate in range(size)]
    sent = [max(0.0, every_ms * batch + 1) for batch in range(count) for _ in range(size)]
    return samples_of(sent, done, wall_s or (every_ms * count + 5) / 1e3)


@pytest.mark.parametrize("size", [2, 8, 32])
def test_it_begins_and_ends_between_batches(size: int) -> None:
    window = steady_window(batches(size, 40), Concurrency(size))
    assert len(window) % size == 0
    assert len(window) / window.length_s == pytest.approx(size * 100, rel=0.01)


def test_it_ends_between_batches_although_the_last_one_is_cut_in_two() -> None:
    whole = batches(16, 40)
    count = len(whole) - 9
    wall_s = float(whole.done_ns[count]) / 1e9
    cut = Samples(whole.sent_ns[:count], whole.done_ns[:count], whole.ok[:count], {}, 0.1, wall_s)
    window = steady_window(cut, Concurrency(16))
    assert len(window) % 16 == 0
    assert len(window) / window.length_s == pytest.approx(1_600, rel=0.01)


def test_the_first_round_is_left_out() -> None:
    samples = batches(8, 40)
    assert len(steady_window(samples, Concurrency(8))) <= len(samples) - 8
    assert steady_window(samples, Concurrency(8)).start_ns >= samples.done_ns[7]


def test_a_slow_beginning_is_left_out() -> None:
    cold = Batcher(5.0, warm_up=8.0, warm_up_ms=300)
    window = steady_window(run(cold, 4, 1.5, np.random.default_rng(0)), Concurrency(4))
    assert 150e6 < window.start_ns < 500e6


def test_failures_are_left_out() -> None:
    samples = batches(1, 100)
    ok = np.arange(100) % 2 == 0
    window = steady_window(
        Samples(samples.sent_ns, samples.done_ns, ok, {"INTERNAL: no": 50}, 0.1, 1.0), Concurrency(1)
    )
    assert set(window.done_ns.tolist()) <= set(samples.done_ns[ok].tolist())
    assert len(window) / window.length_s == pytest.approx(50, rel=0.05)


def test_less_than_two_rounds_are_all_taken_from_the_begin_of_the_load() -> None:
    samples = batches(16, 1, every_ms=2_000)
    window = steady_window(samples, Concurrency(16))
    assert len(window) == 16
    assert window.length_s == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("count", [0, 1])
def test_next_to_nothing_is_a_window_too(count: int) -> None:
    window = steady_window(samples_of([1.0] * count, [3.0] * count, 1.0), Concurrency(4))
    assert len(window) == count
    assert window.length_s > 0


def open_window(batcher: Batcher, rate: float, wall_s: float) -> tuple[Samples, Window]:
    samples = run_open(batcher, RequestRate(rate), wall_s, np.random.default_rng(0))
    return samples, steady_window(samples, RequestRate(rate))


def test_a_slow_beginning_of_an_open_loop_is_left_out() -> None:
    _, window = open_window(Batcher(1.0, spread=0.3, largest=8, warm_up=8.0, warm_up_ms=400), 500, 2.0)
    assert 200e6 < window.start_ns < 500e6


@pytest.mark.parametrize("begin_ms", [500, 1_500, 3_000, 4_500])
def test_a_stall_of_an_open_loop_is_kept(begin_ms: float) -> None:
    stalling = Batcher(0.5, spread=0.3, largest=1, stop_ms=(begin_ms, begin_ms + 1_000))
    samples, window = open_window(stalling, 500, 6.0)
    assert window.latency_ms.max() > 950
    # All that was due meanwhile had to wait.
    late = (samples.done_ns - samples.sent_ns) / 1e6 > 300
    assert np.count_nonzero(window.latency_ms > 300) == np.count_nonzero(late) > 300


def test_latency_that_grows_without_end_is_not_cut_where_it_is_high() -> None:
    samples, window = open_window(Batcher(2.6, spread=0.3, largest=1), 500, 3.0)
    everything = whole_window(samples)
    assert window.end_ns > everything.end_ns - 50e6
    assert np.median(window.latency_ms) >= np.median(everything.latency_ms)
    assert window.latency_ms.max() > 0.98 * everything.latency_ms.max()


def test_an_open_loop_begins_and_ends_between_batches() -> None:
    # 10 requests are due in the 20 ms that a batch takes, and they end within 0.2 ms.
    samples = run_open(Batcher(20.0, spread=0.02), RequestRate(500, "constant"), 0.8, np.random.default_rng(0))
    window = steady_window(samples, RequestRate(500, "constant"))
    gaps_ms = np.diff(samples.done_ns) / 1e6
    for edge_ns in (window.start_ns, window.end_ns):
        assert gaps_ms[np.searchsorted(samples.done_ns, edge_ns)] > 15
    assert len(window) / window.length_s == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize("load", [Ramp(10, 100, 1.0), Replay("day", (0, 1), period_ns=2), Replay("day", (0, 1))])
def test_all_of_what_is_never_steady_counts(load: Load) -> None:
    samples = run(Batcher(5.0, warm_up=8.0, warm_up_ms=300), 4, 1.5, np.random.default_rng(0))
    assert len(steady_window(samples, load)) == len(samples)


def test_ramps_and_recordings_without_a_period_end_by_themselves() -> None:
    assert ends_by_itself(Ramp(1, 2, 3))
    assert ends_by_itself(Replay("day", (0, 1)))
    for load in (Concurrency(1), RequestRate(5), Replay("day", (0, 1), period_ns=2)):
        assert not ends_by_itself(load)


def test_a_window_knows_what_ended_within_it() -> None:
    samples = samples_of([0, 1, 2, 3], [5, 6, 6, 9], 0.01)
    window = Window(samples.done_ns[0], samples.done_ns[1:3], np.ones(2))
    assert window.covers(samples).tolist() == [False, True, True, False]
    tied = Window(samples.done_ns[1], samples.done_ns[2:3], np.ones(1))
    assert tied.covers(samples).tolist() == [False, True, True, False]
    assert not Window(0, samples.done_ns[:0], np.ones(0)).covers(samples).any()
