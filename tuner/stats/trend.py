"""Whether what is measured changes while it is measured: the first half of a window against the second."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.stats.blocks import inflation
from tuner.stats.window import Window

_MOST_BLOCKS, _FEWEST_BLOCKS = 16, 8
# Of sound measurements, one in so many may look as if it changed; it is measured once more, and then not even that.
_BY_CHANCE = 0.002
# A smaller change matters to nobody, however surely it is known.
_MATTERS = 0.05

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """A change that is both beyond chance and large enough to matter.

    Attributes:
        first: The mean over the first half.
        second: The mean over the second.
    """

    first: float
    second: float


def latency_trend(window: Window) -> Trend | None:
    """Of the mean latency in ms."""
    if (edges := _edges(window)) is None:
        return None
    return _trend(np.add.reduceat(window.latency_ms, edges[:-1]) / np.diff(edges))


def gap_trend(window: Window) -> Trend | None:
    """Of the mean time in ms from one answer to the next: one over throughput."""
    if (edges := _edges(window)) is None:
        return None
    ends_ns = np.concatenate([[window.start_ns], window.done_ns[edges[1:] - 1]])
    return _trend(np.diff(ends_ns) / 1e6 / np.diff(edges))


def _edges(window: Window) -> npt.NDArray[np.intp] | None:
    """Where blocks of as many requests each begin and end, an even number of them; None for too few.

    A block is no shorter than a typical request, so that it has little to do with those before it.
    """
    if not len(window):
        return None
    typical_s = max(float(np.median(window.latency_ms)) / 1e3, 1e-9)
    blocks = 2 * (min(_MOST_BLOCKS, int(window.length_s / typical_s), len(window)) // 2)
    if blocks < _FEWEST_BLOCKS:
        return None
    return np.linspace(0, len(window), blocks + 1).astype(np.intp)


def _trend(blocks: _Floats) -> Trend | None:
    """Whether the slope of a line through the blocks, by least squares, is beyond chance, and the change matters.

    Student's t for the few blocks, the variance widened for those that depend on their neighbours. What is left beside
    the line tells how much blocks vary; beside the means of the halves, a steady growth would count as such, too. The
    line is one of logarithms: in a closed loop, a latency that grows with time grows exponentially with each request,
    and a block with a stall in it does not outweigh all others.
    """
    half = len(blocks) // 2
    trend = Trend(float(blocks[:half].mean()), float(blocks[half:].mean()))
    if abs(trend.second - trend.first) <= _MATTERS * trend.first:
        return None
    at = np.arange(len(blocks)) - (len(blocks) - 1) / 2
    square = float(at @ at)
    logarithms = np.log(np.maximum(blocks, 1e-9))
    slope = float(at @ logarithms) / square
    residuals = logarithms - logarithms.mean() - slope * at
    freedom = len(blocks) - 2
    variance = float(residuals @ residuals) / freedom / square * inflation(residuals)
    beyond = float(special.stdtrit(freedom, 1 - _BY_CHANCE / 2)) * math.sqrt(variance)
    return trend if abs(slope) > beyond else None
