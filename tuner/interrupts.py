"""Puts off Ctrl-C and SIGTERM for the moment in which something has no owner yet."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@contextmanager
def put_off() -> Iterator[None]:
    """Within the context, the signals that would end what is under way wait for its end. What is in it must be short.

    Those that Python does not handle do what they would have done. Only the main thread is ever interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)

    before = {number: handler for number in _ENDING if callable(handler := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        for handled, handler in before.items():
            if signal.getsignal(handled) is note:
                signal.signal(handled, handler)
        for late in came:
            signal.raise_signal(late)
