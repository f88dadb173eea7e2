"""Contexts that ignore or delay Ctrl-C, SIGTERM and alarms."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
# In s, until an interruption that was swallowed comes again; where it was swallowed, it would be again.
_AGAIN_S = 0.02
# For contexts that delay it to end.
_MOST_AGAIN_S = 60.0


class ForcedError(KeyboardInterrupt):
    """A second Ctrl-C ended the work in progress; see `until_forced`."""


def end_on_sigterm() -> None:
    """Make SIGTERM end a run like Ctrl-C, and ignore further signals until it has ended. Only for the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    if not isinstance(sys.unraisablehook, _BringBack):
        sys.unraisablehook = _BringBack(sys.unraisablehook)


def _end(*_: object) -> None:
    ignore_what_ends()
    raise KeyboardInterrupt


class _BringBack:
    """A hook that brings back an interruption that Python has swallowed.

    It swallows what is raised in a destructor, or in the callback of a weak reference or of ctypes. With the signals
    ignored from then on, nothing could end the run any more.

    Args:
        before: The hook for all else.
    """

    def __init__(self, before: Callable[[Any], Any]) -> None:
        self._before = before

    def __call__(self, swallowed: Any) -> None:
        # The forced end of a clean-up is of another type.
        if swallowed.exc_type is not KeyboardInterrupt or not is_ending():
            self._before(swallowed)
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        # Not by `threading.Thread`: its locks may be held by what was interrupted.
        _thread.start_new_thread(_interrupt_again, ())


def _interrupt_again() -> None:
    until = time.monotonic() + _MOST_AGAIN_S
    while time.monotonic() < until:
        time.sleep(_AGAIN_S)
        # Not within a context that ignores or delays it.
        if signal.getsignal(signal.SIGTERM) == _end:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def is_ending() -> bool:
    """Whether a signal has ended the work of this process; see `end_on_sigterm`."""
    return signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def ignore_what_ends() -> None:
    """Ignore Ctrl-C, SIGTERM and alarms from now on, as the process is ending. Only for the main thread."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and alarms within the context, which must be short."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextmanager
def put_off() -> Iterator[None]:
    """Delay Ctrl-C, SIGTERM and alarms until the end of the context, which must be short."""
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
    """Within the context, only a second Ctrl-C interrupts: it raises `ForcedError`.

    For clean-up that may take long. SIGTERM counts as Ctrl-C, and an interruption before the context counts as the
    first one. An alarm is delayed until the end. After `ForcedError`, these signals are ignored.

    Args:
        tell: Called at the first Ctrl-C, to tell the user that a second one interrupts. Called at once after an
            interruption before the context.
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
    """The signal handler of `until_forced`."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._began = False
        self.rang = False

    def begin(self) -> None:
        """From now on, the next Ctrl-C raises `ForcedError`."""
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
    """Handle the signals within the context. Other threads get no signals, so there it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: action for number in _ENDING if (action := signal.getsignal(number)) is not None}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    except ForcedError:
        # The error must be reported without a further interruption.
        before = dict.fromkeys(before, signal.SIG_IGN)
        raise
    finally:
        for number, action in before.items():
            signal.signal(number, action)
