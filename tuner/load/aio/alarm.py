"""A precise timer for an asyncio loop, whose own timers are rounded up to a millisecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import Final

# From <sys/timerfd.h>; in the os module from Python 3.13 on.
_CLOEXEC: Final = os.O_CLOEXEC
_NONBLOCK: Final = os.O_NONBLOCK
_ABSOLUTE: Final = 1

_LIBC = ctypes.CDLL(None, use_errno=True)
_NS_PER_S = 1_000_000_000


class Alarm:
    """A timerfd that a loop listens to. One coroutine at a time may wait for it.

    Args:
        loop: The loop, until `close`.

    Raises:
        OSError: there are no descriptors left.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._descriptor = _checked(_LIBC.timerfd_create(time.CLOCK_MONOTONIC, _CLOEXEC | _NONBLOCK))
        self._rung: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, self._ring)

    async def until(self, at_ns: int) -> None:
        """Wait until a time of the monotonic clock, in ns; one turn of the loop if it has passed."""
        if at_ns <= time.monotonic_ns():
            await asyncio.sleep(0)
            return
        self._rung = self._loop.create_future()
        # The period of repetition, and the start; each in seconds and ns.
        setting = (ctypes.c_long * 4)(0, 0, *divmod(at_ns, _NS_PER_S))
        _checked(_LIBC.timerfd_settime(self._descriptor, _ABSOLUTE, setting, None))
        await self._rung

    def close(self) -> None:
        """Remove the timer from the loop."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _ring(self) -> None:
        os.read(self._descriptor, 8)
        if not self._rung.done():
            self._rung.set_result(None)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
