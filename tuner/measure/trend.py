"""Whether what is measured changes while it is measured: the first half of a window against the second."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.measure.statistics import inflation
from tuner.measure.window import Window

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
    """Student's t for the difference of two means, its variance widened for blocks that depend on their neighbours."""
    half = len(blocks) // 2
    first, second = blocks[:half], blocks[half:]
    change = float(second.mean() - first.mean())
    if abs(change) <= _MATTERS * float(first.mean()):
        return None
    residuals = np.concatenate([first - first.mean(), second - second.mean()])
    freedom = len(blocks) - 2
    variance = float(residuals @ residuals) / freedom * 2 / half * inflation(residuals)
    if abs(change) <= float(special.stdtrit(freedom, 1 - _BY_CHANCE / 2)) * math.sqrt(variance):
        return None
    return Trend(float(first.mean()), float(second.mean()))
