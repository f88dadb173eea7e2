"""Samples a source periodically in a thread, during a measurement."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from typing_extensions import Self

_Answer = TypeVar("_Answer")

PERIOD_S = 0.1
# An expensive source is read less often, so that it takes at most this share of a core.
_SHARE = 0.05
# In s. Only a hanging Docker engine takes longer; the thread is then abandoned.
_END_S = 1.0


@dataclass(frozen=True)
class Sample(Generic[_Answer]):
    """A sample.

    Attributes:
        at_ns: Its time on the monotonic clock, like the times of requests.
        answer: The value that the source returned.
    """

    at_ns: int
    answer: _Answer


class Sampling(Generic[_Answer]):
    """A thread that samples while its context is open.

    Args:
        ask: The source. It never raises, and returns None if there is no value. If the first value is None, sampling
            ends.
        period_s: Shortest time between samples, in seconds.
    """

    def __init__(self, ask: Callable[[], _Answer | None], *, period_s: float = PERIOD_S) -> None:
        self._ask = ask
        self._period_s = self._pause_s = period_s
        self._samples: list[Sample[_Answer]] = []
        self._over = False
        # A SimpleQueue, since an interruption of the main thread may leave Python's locks locked.
        self._hurry = queue.SimpleQueue[queue.SimpleQueue[None] | None]()
        self._ended = True
        self._asked_at_ns = 0
        self._thread = threading.Thread(target=self._run, name="tritontune-sampling", daemon=True)

    def __enter__(self) -> Self:
        self._ended = False
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._hurry.put(None)
        self._thread.join(_END_S)

    @property
    def samples(self) -> tuple[Sample[_Answer], ...]:
        """All samples so far, in order of time."""
        return tuple(self._samples)

    def between(self, start_ns: int, end_ns: int) -> tuple[Sample[_Answer], ...]:
        """The samples of a past window; if there are fewer than three, also those just before and after it."""
        within = [sample for sample in self._samples if start_ns <= sample.at_ns <= end_ns]
        if len(within) >= 3:
            return tuple(within)
        self._have_asked_since(end_ns)
        samples = self.samples
        before = [sample for sample in samples if sample.at_ns < start_ns][-1:]
        within = [sample for sample in samples if start_ns <= sample.at_ns <= end_ns]
        after = [sample for sample in samples if sample.at_ns > end_ns][:1]
        return (*before, *within, *after)

    def _have_asked_since(self, end_ns: int) -> None:
        """Request a sample, and return once one was taken after that time, or sampling has ended."""
        deadline = time.monotonic() + _END_S
        while self._asked_at_ns <= end_ns and not self._ended and (left_s := deadline - time.monotonic()) > 0:
            waiter = queue.SimpleQueue[None]()
            self._hurry.put(waiter)
            with suppress(queue.Empty):
                waiter.get(timeout=left_s)

    def _run(self) -> None:
        try:
            answers = self._sample()
            while answers and not self._over:
                waiter = self._next_hurry(self._pause_s)
                if not self._over:
                    self._sample()
                if waiter:
                    waiter.put(None)
        finally:
            self._ended = True
            while waiter := self._next_hurry(0.0):
                waiter.put(None)

    def _next_hurry(self, within_s: float) -> queue.SimpleQueue[None] | None:
        """The queue of a caller that waits for the next sample; None if there is none within a time."""
        try:
            return self._hurry.get(timeout=within_s)
        except queue.Empty:
            return None

    def _sample(self) -> bool:
        began_ns, began_cpu_s = time.monotonic_ns(), time.thread_time()
        answer = self._ask()
        self._pause_s = max(self._period_s, (time.thread_time() - began_cpu_s) / _SHARE)
        # If the answer is slow, its time is the middle of the call.
        at_ns = (began_ns + time.monotonic_ns()) // 2
        if answer is not None:
            self._samples.append(Sample(at_ns, answer))
        self._asked_at_ns = at_ns
        return answer is not None
