"""Rates with 95 % intervals, from completions that depend on each other."""

from __future__ import annotations

import math

import numpy as np

from tuner.core.record import Interval
from tuner.stats.blocks import TAIL, block_edges, gamma, half_width_of_sum, inflation, student
from tuner.stats.window import Window

_FEWEST_BLOCKS, _GROWTH_BLOCKS = 4, 8
# With fewer completions, a Poisson process is assumed.
_FEW = 8


def throughput(window: Window) -> Interval:
    """Completions per second, counted from completion to completion: (N_k - N_j) / (t_k - t_j).

    So a batch at an end of the window does not distort the rate. The interval is that of a ratio estimated from blocks
    of time; see `half_width_of_sum`. With very few completions or blocks, a Poisson process is assumed.

    Raises:
        ValueError: the window is empty.
    """
    if not len(window):
        raise ValueError("no request ended within the window")
    count, length_s = len(window), window.length_s
    rate = count / length_s
    edges = block_edges(window)
    events = len(edges) - 1
    if count < _FEW or events < _FEWEST_BLOCKS:
        low, high = gamma(TAIL, events) / events, gamma(1 - TAIL, events + 1) / events
        return Interval(value=rate, low=rate * low, high=rate * high)
    ends_ns = np.concatenate([[window.start_ns], window.done_ns[edges[1:] - 1]])
    residuals = np.diff(edges) - rate * np.diff(ends_ns) / 1e9
    half = half_width_of_sum(residuals) / length_s
    return Interval(value=rate, low=max(0.0, rate - half), high=rate + half)


def poisson_rate(count: int, length_s: float) -> Interval:
    """The rate of `count` events in `length_s` seconds, with the exact interval of a Poisson process (Garwood 1936)."""
    low = gamma(TAIL, count) if count else 0.0
    return Interval(value=count / length_s, low=low / length_s, high=gamma(1 - TAIL, count + 1) / length_s)


def growth(window: Window) -> Interval:
    """The growth of latency, in s per s: 0 if requests are answered as fast as they arrive.

    The least-squares slope through mean latencies of 8 blocks of equally many requests, with Student's t, and the
    variance corrected for correlation (`inflation`). With too few requests, the interval is infinite.
    """
    if len(window) < _GROWTH_BLOCKS * _FEW:
        return Interval(value=0.0, low=-math.inf, high=math.inf)
    blocks = np.linspace(0, len(window), _GROWTH_BLOCKS + 1).astype(np.intp)[:-1]
    sizes = np.diff(blocks, append=len(window))
    latency_s = np.add.reduceat(window.latency_ms, blocks) / sizes / 1e3
    at_s = np.add.reduceat((window.done_ns - window.start_ns) / 1e9, blocks) / sizes
    at_s -= at_s.mean()
    square = max(float(at_s @ at_s), 1e-18)
    slope = float(at_s @ latency_s) / square
    residuals = latency_s - latency_s.mean() - slope * at_s
    variance = float(residuals @ residuals) / (_GROWTH_BLOCKS - 2) / square * inflation(residuals)
    half = student(_GROWTH_BLOCKS - 1) * math.sqrt(variance)
    return Interval(value=slope, low=slope - half, high=slope + half)
