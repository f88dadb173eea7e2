"""A night ends when it is told to, and when its window is over; and what it does last, nobody disturbs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Window:
    """The time that a night has; when it is over, what is under way is interrupted as Ctrl-C does.

    Leaving the context takes the alarm back.
    """

    def __init__(self) -> None:
        self.over = False

    @contextmanager
    def lasting(self, seconds: float) -> Iterator[None]:
        """Within the context, `KeyboardInterrupt` comes after so many seconds. Only the main thread has it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(*_: object) -> None:
            if any(signal.getsignal(number) == signal.SIG_IGN for number in _ENDING):
                return  # It is ending already.
            self.over = True
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, end)
        began = time.monotonic()
        others_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if others_s:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, others_s - (time.monotonic() - began)))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the context, Ctrl-C and SIGTERM do nothing; what is in it must be short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
