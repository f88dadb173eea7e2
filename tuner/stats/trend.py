"""Drift: changes between the first and the second half of a window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.stats.blocks import inflation
from tuner.stats.window import Window

_MOST_BLOCKS, _FEWEST_BLOCKS = 16, 8
# Probability of a false alarm. The point is then re-measured, so two false alarms in a row are rare.
_BY_CHANCE = 0.002
# Smaller relative changes are ignored, even if significant.
_MATTERS = 0.05

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Trend:
    """A change that is significant and larger than 5 %.

    Attributes:
        first: The mean over the first half.
        second: The mean over the second.
    """

    first: float
    second: float


def latency_trend(window: Window) -> Trend | None:
    """The trend of the mean latency in ms; None: no trend."""
    if (edges := _edges(window)) is None:
        return None
    return _trend(np.add.reduceat(window.latency_ms, edges[:-1]) / np.diff(edges))


def gap_trend(window: Window) -> Trend | None:
    """The trend of the mean time in ms between answers (1 / throughput); None: no trend."""
    if (edges := _edges(window)) is None:
        return None
    ends_ns = np.concatenate([[window.start_ns], window.done_ns[edges[1:] - 1]])
    return _trend(np.diff(ends_ns) / 1e6 / np.diff(edges))


def _edges(window: Window) -> npt.NDArray[np.intp] | None:
    """Indices at which an even number of blocks with equally many requests begin and end; None: too few.

    A block is at least a median latency long, so that it depends little on earlier ones.
    """
    if not len(window):
        return None
    typical_s = max(float(np.median(window.latency_ms)) / 1e3, 1e-9)
    blocks = 2 * (min(_MOST_BLOCKS, int(window.length_s / typical_s), len(window)) // 2)
    if blocks < _FEWEST_BLOCKS:
        return None
    return np.linspace(0, len(window), blocks + 1).astype(np.intp)


def _trend(blocks: _Floats) -> Trend | None:
    """The trend of blocks, if their least-squares slope is significant and the change is above 5 %.

    The test is Student's t with the variance of the residuals, corrected for correlation (`inflation`). The line is
    fitted to logarithms, since growing latency grows exponentially in a closed loop, and a stall in one block must not
    dominate.
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
