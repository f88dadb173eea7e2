"""Keeps Ctrl-C, SIGTERM and alarms away from moments in which they would do harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


class ForcedError(KeyboardInterrupt):
    """Somebody insists that what is under way ends; see `until_forced`."""


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
def until_forced(tell: Callable[[], None]) -> Iterator[None]:
    """Within the context, Ctrl-C ends what is under way where it comes a second time, by `ForcedError`.

    For what must be done before the end, and may take long. What has been interrupted already counts; SIGTERM is the
    same as Ctrl-C, and an alarm waits. After it was forced, nothing interrupts any more.

    Args:
        tell: Says that the next time will do; called at once where something was interrupted before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    insisting = _Insisting(tell)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        insisting.begin()
    with _handled_by(insisting):
        yield
    if insisting.rang:
        signal.raise_signal(signal.SIGALRM)


class _Insisting:
    """Handles signals until somebody insists."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._began = False
        self.rang = False

    def begin(self) -> None:
        """From now on, the next one ends what is under way."""
        self._began = True
        self._tell()

    def __call__(self, number: int, _: object) -> None:
        if number == signal.SIGALRM:
            self.rang = True
        elif self._began:
            ignore_what_ends()
            raise ForcedError
        else:
            self.begin()


@contextmanager
def _handled_by(handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    """Only the main thread is ever interrupted, so that elsewhere nothing is to be done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: action for number in _ENDING if (action := signal.getsignal(number)) is not None}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    except ForcedError:
        # What is left to say is said in peace.
        before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, action in before.items():
            signal.signal(number, action)
