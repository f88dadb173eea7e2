from __future__ import annotations

import gc
import sys
import threading
import time
from contextlib import suppress
from itertools import count, pairwise
from types import FrameType
from typing import TYPE_CHECKING

import pytest

from tuner.measure import sampling as module
from tuner.measure.sampling import Sample, Sampling

if TYPE_CHECKING:
    from _typeshed import TraceFunction

MS = 1_000_000


def _await(condition: threading.Event) -> None:
    assert condition.wait(60)


def test_a_source_is_asked_again_and_again_beside() -> None:
    numbers, enough = count(), threading.Event()

    def ask() -> int:
        if (number := next(numbers)) == 5:
            enough.set()
        return number

    began_ns = time.monotonic_ns()
    with Sampling(ask, period_s=0.01) as sampling:
        _await(enough)
    samples = sampling.samples
    assert [sample.answer for sample in samples] == list(range(len(samples)))
    assert len(samples) >= 6
    assert began_ns <= samples[0].at_ns
    assert all(later.at_ns - sooner.at_ns >= 9 * MS for sooner, later in pairwise(samples))
    # Left means left.
    ended = next(numbers)
    assert not any(thread.name == "tritontune-sampling" for thread in threading.enumerate())
    assert next(numbers) == ended + 1


def test_a_source_that_has_no_answer_at_first_is_asked_no_more() -> None:
    asked = count()

    def ask() -> int | None:
        next(asked)
        return None

    with Sampling(ask, period_s=0.0) as sampling:
        sampling._thread.join(10)
        assert not sampling._thread.is_alive()
    assert sampling.samples == ()
    assert next(asked) == 1


def test_an_answer_that_is_missing_once_is_left_out() -> None:
    numbers, enough = count(), threading.Event()

    def ask() -> int | None:
        number = next(numbers)
        if number == 3:
            enough.set()
        return None if number == 1 else number

    with Sampling(ask, period_s=0.0) as sampling:
        _await(enough)
    assert [sample.answer for sample in sampling.samples][:2] == [0, 2]


def test_a_source_that_takes_much_time_of_the_processor_is_asked_less_often() -> None:
    enough = threading.Event()
    times: list[float] = []

    def ask() -> int:
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        times.append(time.monotonic())
        if len(times) == 3:
            enough.set()
        return 1

    with Sampling(ask, period_s=0.0):
        _await(enough)
    assert min(later - sooner for sooner, later in pairwise(times)) > 0.15


def test_a_source_that_hangs_is_left_behind() -> None:
    release = threading.Event()
    began = time.monotonic()
    with Sampling(lambda: release.wait(120), period_s=0.0) as sampling:
        pass
    assert time.monotonic() - began < 60
    release.set()
    sampling._thread.join(10)


def _taken(*at_ms: int) -> Sampling[int]:
    sampling: Sampling[int] = Sampling(lambda: None)
    sampling._samples = [Sample(at * MS, at) for at in at_ms]
    return sampling


def _between(sampling: Sampling[int], start_ms: int, end_ms: int) -> list[int]:
    return [sample.answer for sample in sampling.between(start_ms * MS, end_ms * MS)]


def test_the_samples_of_a_time_are_those_within_it() -> None:
    assert _between(_taken(0, 100, 200, 300, 400, 500), 100, 400) == [100, 200, 300, 400]


def test_of_a_short_time_those_around_it_count_too() -> None:
    sampling = _taken(0, 100, 200, 300, 400)
    assert _between(sampling, 110, 290) == [100, 200, 300]
    assert _between(sampling, 110, 190) == [100, 200]
    assert _between(sampling, 350, 900) == [300, 400]
    assert _between(_taken(), 0, 1) == []


def test_a_time_that_has_just_ended_is_followed_by_an_answer_at_once() -> None:
    numbers = count()
    with Sampling(lambda: next(numbers), period_s=600.0) as sampling:
        sampling.between(0, time.monotonic_ns())
        for _ in range(3):
            now_ns = time.monotonic_ns()
            before, after = sampling.between(now_ns, now_ns)
            assert after.answer == before.answer + 1
            assert before.at_ns < now_ns < after.at_ns


def test_a_source_that_answers_no_more_is_waited_for_once() -> None:
    asked: list[int] = []

    def ask() -> int | None:
        asked.append(time.monotonic_ns())
        return 1 if len(asked) == 1 else None

    with Sampling(ask, period_s=600.0) as sampling:
        sampling.between(0, time.monotonic_ns())
        now_ns = time.monotonic_ns()
        assert len(sampling.between(now_ns, now_ns)) == 1
        assert asked[-1] > now_ns > asked[-2]


@pytest.mark.slow
def test_an_interruption_at_any_moment_lets_it_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_END_S", 0.02)
    files = {threading.__file__, module.__file__}

    def interrupted_at(moment: int) -> bool:
        steps, came = count(), threading.Event()

        def trace(frame: FrameType, _event: str, _arg: object) -> TraceFunction:
            if frame.f_code.co_filename in files and next(steps) == moment:
                sys.settrace(None)
                came.set()
                raise KeyboardInterrupt
            return trace

        def look() -> None:
            with suppress(KeyboardInterrupt), Sampling(lambda: 1, period_s=0.001) as sampling:
                sys.settrace(trace)
                sampling.between(at_ns, at_ns)
                sys.settrace(None)

        at_ns = time.monotonic_ns() + 1_000_000 * MS  # nobody has asked since then
        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(60)
        assert not looking.is_alive(), f"it hangs after an interruption at step {moment}"
        return came.is_set()

    moments = 0
    gc.disable()  # what other tests left would be finalized in a thread that is interrupted
    try:
        while interrupted_at(moments):
            moments += 1
    finally:
        gc.enable()
    assert moments > 10
