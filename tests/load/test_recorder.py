from __future__ import annotations

import threading

import numpy as np
import pytest

from tuner.load.recorder import Recorder


def test_what_is_noted_comes_back_in_order_with_its_outcome() -> None:
    recorder = Recorder()
    recorder.success(1, 5)
    recorder.failure(2, 6, "INTERNAL: no")
    recorder.success(3, 7)
    samples = recorder.samples()
    assert samples.sent_ns.tolist() == [1, 2, 3]
    assert samples.done_ns.tolist() == [5, 6, 7]
    assert samples.ok.tolist() == [True, False, True]
    assert dict(samples.errors) == {"INTERNAL: no": 1}


def test_nothing_noted_is_no_samples() -> None:
    samples = Recorder().samples()
    assert len(samples) == 0
    assert not samples.errors
    assert samples.wall_s >= 0


def test_it_grows_beyond_its_capacity_and_loses_nothing() -> None:
    recorder = Recorder(capacity=2)
    for at in range(1_000):
        if at % 10:
            recorder.success(at, at + 1)
        else:
            recorder.failure(at, at + 1, f"UNAVAILABLE: {at % 3}")
    samples = recorder.samples()
    assert samples.done_ns.tolist() == list(range(1, 1_001))
    assert np.count_nonzero(samples.ok) == 900
    assert samples.errors == {"UNAVAILABLE: 0": 34, "UNAVAILABLE: 1": 33, "UNAVAILABLE: 2": 33}


def test_samples_stay_as_they_were_when_more_is_noted() -> None:
    recorder = Recorder(capacity=2)
    recorder.success(1, 2)
    early = recorder.samples()
    for _ in range(9):
        recorder.failure(3, 4, "INTERNAL: no")
    assert early.done_ns.tolist() == [2]
    assert not early.errors


def test_samples_cannot_be_written_to() -> None:
    recorder = Recorder()
    recorder.success(1, 2)
    with pytest.raises(ValueError, match="read-only"):
        recorder.samples().done_ns[0] = 0


def test_messages_that_never_repeat_are_counted_together_in_the_end() -> None:
    recorder = Recorder()
    for at in range(300):
        recorder.failure(at, at, f"INTERNAL: request {at}")
    errors = recorder.samples().errors
    assert sum(errors.values()) == 300
    assert errors["other errors"] == 250
    assert len(errors) == 51


def test_the_clocks_stop() -> None:
    recorder = Recorder()
    recorder.stop()
    assert recorder.samples().wall_s == recorder.samples().wall_s
    assert recorder.samples().cpu_s == recorder.samples().cpu_s


def test_samples_taken_while_another_thread_notes_are_whole() -> None:
    recorder = Recorder(capacity=1)
    total = 20_000

    def note() -> None:
        for at in range(total):
            if at % 2:
                recorder.success(at, at)
            else:
                recorder.failure(at, at, "INTERNAL: no")

    writer = threading.Thread(target=note)
    writer.start()
    taken = 0
    while taken < total:
        samples = recorder.samples()
        taken = len(samples)
        assert samples.done_ns.tolist() == list(range(taken))
        assert sum(samples.errors.values()) == np.count_nonzero(~samples.ok) == (taken + 1) // 2
    writer.join()
