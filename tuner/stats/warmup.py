"""Where a measurement stops warming up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BATCH = 5
_FEWEST_BATCHES = 4
# A stall in the middle is no warm-up: above this share of them, latencies weigh alike.
_LEVELLED_ABOVE = 0.9

_Floats = npt.NDArray[np.float64]


def warm_up(latency_ms: _Floats, concurrency: int) -> int:
    """How many requests at the beginning of a closed loop to leave out; at most half of them.

    The first round goes in any case: its requests all arrive at once, which no later ones do, and
    may pay for whatever the server does once. What lies beyond is MSER-5's to find.

    Args:
        latency_ms: (n,) in the order in which the requests ended.
        concurrency: Requests of a round.
    """
    count = len(latency_ms)
    if not count:
        return 0
    return max(min(concurrency, count // 2), mser5(_levelled(latency_ms)))


def open_warm_up(latency_ms: _Floats) -> int:
    """How many requests at the beginning of an open loop to leave out; at most half of them.

    The very first find an idle server, and go in any case. Beyond them MSER-5 proposes how many, but it would take a
    stall of the first half for warm-up, too: in an open loop a stall is in the latency of all that was due meanwhile.
    So warm-up ends where latency first comes to the level that it has later, from above or from below: what was at
    that level and left it again is no warm-up.

    Args:
        latency_ms: (n,) in the order in which the requests ended.
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
    """MSER-5 (White 1997): the number of leading values, at most half, without which the mean is known best.

    That is where the sum of squares of the remaining means of five, over the square of their number, is least.
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
