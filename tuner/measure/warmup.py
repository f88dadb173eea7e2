"""Where a measurement stops warming up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BATCH = 5
_FEWEST_BATCHES = 4
# A stall in the middle is no warm-up: above this share of them, latencies weigh alike.
_LEVELLED_ABOVE = 0.9


def warm_up(latency_ms: npt.NDArray[np.float64], concurrency: int) -> int:
    """How many requests at the beginning to leave out; at most half of them.

    The first round goes in any case: its requests all arrive at once, which no later ones do, and
    may pay for whatever the server does once. What lies beyond is MSER-5's to find.

    Args:
        latency_ms: (n,) in the order in which the requests ended.
        concurrency: Requests of a round.
    """
    count = len(latency_ms)
    if not count:
        return 0
    levelled = np.minimum(latency_ms, np.quantile(latency_ms, _LEVELLED_ABOVE))
    return max(min(concurrency, count // 2), mser5(levelled))


def mser5(values: npt.NDArray[np.float64]) -> int:
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
