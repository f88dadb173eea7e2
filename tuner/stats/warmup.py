"""Finds the end of the warm-up of a measurement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BATCH = 5
_FEWEST_BATCHES = 4
# Latencies are capped at this quantile, so that a stall in the middle does not count as warm-up.
_LEVELLED_ABOVE = 0.9

_Floats = npt.NDArray[np.float64]


def warm_up(latency_ms: _Floats, concurrency: int) -> int:
    """The number of leading requests of a closed loop to leave out; at most half of them.

    The first round is always left out: its requests arrive all at once, and include one-time work of the server. MSER-5
    finds longer warm-ups.

    Args:
        latency_ms: (n,) in order of completion.
        concurrency: Requests under way.
    """
    count = len(latency_ms)
    if not count:
        return 0
    return max(min(concurrency, count // 2), mser5(_levelled(latency_ms)))


def open_warm_up(latency_ms: _Floats) -> int:
    """The number of leading requests of an open loop to leave out; at most half of them.

    The first 5 are always left out, as they find an idle server. MSER-5 may find more, but would also count a stall in
    the first half as warm-up. So warm-up ends where latency first reaches its later level.

    Args:
        latency_ms: (n,) in order of completion.
    """
    count = len(latency_ms)
    first = min(_BATCH, count // 2)
    proposed = mser5(_levelled(latency_ms))
    if proposed <= first:
        return first
    later_ms = float(np.median(latency_ms[proposed:]))
    means = latency_ms[:proposed].reshape(-1, _BATCH).mean(axis=1)
    arrived = (means <= later_ms if means[0] > later_ms else means >= later_ms).nonzero()[0]
    return max(first, int(arrived[0]) * _BATCH) if len(arrived) else proposed


def mser5(values: _Floats) -> int:
    """MSER-5 (K. P. White, 1997): the number of leading values to leave out, at most half.

    It minimises the sum of squares of the remaining means of five, divided by the square of their number.
    """
    batches = len(values) // _BATCH
    if batches < _FEWEST_BATCHES:
        return 0
    means = values[: batches * _BATCH].reshape(batches, _BATCH).mean(axis=1)
    backward = (means - means.mean())[::-1]
    remaining = np.arange(1, batches + 1)
    squares = np.cumsum(backward**2) - np.cumsum(backward) ** 2 / remaining
    score = (squares / remaining**2)[::-1]
    return int(np.argmin(score[: batches // 2 + 1])) * _BATCH


def _levelled(latency_ms: _Floats) -> _Floats:
    levelled: _Floats = np.minimum(latency_ms, np.quantile(latency_ms, _LEVELLED_ABOVE))
    return levelled
