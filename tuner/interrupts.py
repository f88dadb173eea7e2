"""Keeps Ctrl-C, SIGTERM and alarms away from moments in which they would do harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


def ignore_what_ends() -> None:
    """From now on nothing interrupts: for what is ending already. For the main thread."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the context, the signals that would end what is under way do nothing. What is in it must be short."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextmanager
def put_off() -> Iterator[None]:
    """Within the context, the signals that would end what is under way wait. What is in it must be short."""
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)

    try:
        with _handled_by(note):
            yield
    finally:
        for late in came:
            signal.raise_signal(late)


@contextmanager
def _handled_by(handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    """Only the main thread is ever interrupted, so that elsewhere nothing is to be done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: known for number in _ENDING if (known := signal.getsignal(number)) is not None}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
