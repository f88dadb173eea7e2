"""The time window of a night."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tuner.core.interrupts import undisturbed


class NightWindow:
    """The time window of a night; at its end, the work is interrupted as by Ctrl-C.

    Attributes:
        over: Whether the window has ended.
    """

    def __init__(self) -> None:
        self.over = False

    @contextmanager
    def lasting(self, seconds: float) -> Iterator[None]:
        """Raise `KeyboardInterrupt` in the context after `seconds`. Without effect outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        ending = ExitStack()

        def end(*_: object) -> None:
            self.over = True
            ending.enter_context(undisturbed())
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, end)
        began = time.monotonic()
        others_s, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            ending.close()
            signal.signal(signal.SIGALRM, before)
            if others_s:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, others_s - (time.monotonic() - began)))
