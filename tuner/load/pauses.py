"""Pauses after failed requests, so that a dead server costs no CPU time."""

from __future__ import annotations

from typing import Final

FIRST_PAUSE_NS: Final = 10_000_000
_LONGEST_PAUSE_NS = 250_000_000
_MOST_DOUBLINGS = 10


def pause_ns(failures: int) -> int:
    """The pause in ns after consecutive failures: 0 after the first, then 10 ms, doubling up to 250 ms."""
    if failures < 2:
        return 0
    return min(_LONGEST_PAUSE_NS, FIRST_PAUSE_NS << min(failures - 2, _MOST_DOUBLINGS))
