"""Confidence intervals of sums over a window, for terms that are correlated in time.

Requests of a batch end together, and in a closed loop each request waits for earlier ones. So variances are estimated
from blocks of time, not from single requests.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.stats.window import Window

TAIL = 0.025
"""The probability on each side of a 95 % interval."""

Z95 = 1.96
"""The two-sided 95 % quantile of the normal distribution."""

_MOST_BLOCKS, _FEWEST_BLOCKS = 40, 4
_BLOCK_LATENCIES = 2.0
# Bounds of the estimated correlation of neighbouring blocks: with few blocks, stronger values are not reliable.
_CORRELATION = (-0.25, 0.8)
_WAVES = 8

_Floats = npt.NDArray[np.float64]


def block_edges(window: Window) -> npt.NDArray[np.intp]:
    """Indices of completions at which blocks of time begin and end, shape (blocks + 1,); empty blocks are left out.

    A block is at least two median latencies long, so that its requests depend little on earlier ones.
    """
    typical_s = max(float(np.median(window.latency_ms)) / 1e3, 1e-9)
    blocks = int(np.clip(window.length_s / typical_s / _BLOCK_LATENCIES, _FEWEST_BLOCKS, _MOST_BLOCKS))
    times = np.linspace(window.start_ns, window.done_ns[-1], blocks + 1)
    edges = np.searchsorted(window.done_ns, times, side="right")
    edges[0], edges[-1] = 0, len(window)
    distinct: npt.NDArray[np.intp] = np.unique(edges)
    return distinct


def half_width_of_sum(residuals: _Floats) -> float:
    """Half width of the 95 % interval of a sum of block residuals with mean 0.

    The larger of two estimates, each with its quantile of Student's t. (1) The variance of the blocks times (1 + rho) /
    (1 - rho), with the correlation rho of neighbouring blocks; best for fast changes. (2) The mean power of the eight
    slowest cosines (E. Lazarus, D. J. Lewis, J. H. Stock and M. W. Watson, JBES 36, 2018); best for slow changes, as on
    a shared machine.
    """
    blocks = len(residuals)
    variance = blocks / (blocks - 1) * float(residuals @ residuals) * inflation(residuals)
    waves = np.arange(1, min(_WAVES, blocks - 1) + 1)
    cosines = np.cos(np.pi / blocks * np.outer(waves, np.arange(blocks) + 0.5))
    power = float(np.mean(2 * (cosines @ residuals) ** 2))
    return max(student(blocks) * math.sqrt(variance), student(len(waves) + 1) * math.sqrt(power))


def inflation(residuals: _Floats) -> float:
    """The factor (1 + rho) / (1 - rho) on the variance of a mean for correlation rho of neighbouring blocks."""
    spread = residuals - residuals.mean()
    square = float(spread @ spread)
    rho = float(spread[1:] @ spread[:-1]) / square if square > 0 else 0.0
    rho = float(np.clip(rho, *_CORRELATION))
    return (1 + rho) / (1 - rho)


def student(count: int, tail: float = TAIL) -> float:
    """The quantile of Student's t for the mean of `count` values; `tail` is the probability beyond it."""
    return float(special.stdtrit(count - 1, 1 - tail))


def gamma(probability: float, shape: float) -> float:
    """The quantile of the gamma distribution with scale 1: the time of `shape` Poisson events at rate 1."""
    return float(special.gammaincinv(shape, probability))
