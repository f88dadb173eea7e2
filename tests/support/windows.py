"""Windows made of distances between completions."""

from __future__ import annotations

import math

import numpy as np

from tuner.core.record import Interval
from tuner.stats.window import Window


def window(gaps_ms: np.ndarray[tuple[int], np.dtype[np.float64]], latency_ms: float | None = None) -> Window:
    """Completions at these distances; each takes its gap, as one after the other does, or always the same."""
    done_ns = np.cumsum(gaps_ms * 1e6).astype(np.int64)
    return Window(0, done_ns, gaps_ms if latency_ms is None else np.full(len(gaps_ms), latency_ms))


def exponential(count: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).exponential(10, count)


def sound(interval: Interval) -> bool:
    return 0 <= interval.low <= interval.value <= interval.high < math.inf
