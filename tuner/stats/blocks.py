"""How sure a sum over a window is, when what is summed is correlated in time.

Batch-mates end together, and in a closed loop each request waits for those before it. So blocks of time are compared,
never single requests.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.stats.window import Window

TAIL = 0.025
"""Of a 95 % interval, at either side."""

Z95 = 1.96
"""The two-sided 95 % quantile of the normal distribution."""

_MOST_BLOCKS, _FEWEST_BLOCKS = 40, 4
_BLOCK_LATENCIES = 2.0
# So few blocks cannot tell a stronger correlation from a trend, nor one of blocks that alternate.
_CORRELATION = (-0.25, 0.8)
_WAVES = 8

_Floats = npt.NDArray[np.float64]


def block_edges(window: Window) -> npt.NDArray[np.intp]:
    """Where among the completions the blocks of time begin and end; blocks without one are left out.

    A block is no shorter than two typical requests, so that its requests have little to do with those before it.
    """
    typical_s = max(float(np.median(window.latency_ms)) / 1e3, 1e-9)
    blocks = int(np.clip(window.length_s / typical_s / _BLOCK_LATENCIES, _FEWEST_BLOCKS, _MOST_BLOCKS))
    times = np.linspace(window.start_ns, window.done_ns[-1], blocks + 1)
    edges = np.searchsorted(window.done_ns, times, side="right")
    edges[0], edges[-1] = 0, len(window)
    distinct: npt.NDArray[np.intp] = np.unique(edges)
    return distinct


def half_width_of_sum(residuals: _Floats) -> float:
    """Half of the 95 % interval of a sum of residuals of mean 0, each of a block.

    Two estimates of its variance, and the one that says less: that of the blocks themselves, widened by
    (1 + rho) / (1 - rho) for the correlation rho of neighbours, which knows fast changes best; and the mean power of
    the eight slowest cosines (Lazarus, Lewis, Stock and Watson 2018), which sees slow ones, such as those of a
    machine that is not alone. Each with Student's t for what it is made of.
    """
    blocks = len(residuals)
    variance = blocks / (blocks - 1) * float(residuals @ residuals) * inflation(residuals)
    waves = np.arange(1, min(_WAVES, blocks - 1) + 1)
    cosines = np.cos(np.pi / blocks * np.outer(waves, np.arange(blocks) + 0.5))
    power = float(np.mean(2 * (cosines @ residuals) ** 2))
    return max(student(blocks) * math.sqrt(variance), student(len(waves) + 1) * math.sqrt(power))


def inflation(residuals: _Floats) -> float:
    """How much larger the variance of a mean is where neighbouring blocks are correlated: (1 + rho) / (1 - rho)."""
    spread = residuals - residuals.mean()
    square = float(spread @ spread)
    rho = float(spread[1:] @ spread[:-1]) / square if square > 0 else 0.0
    rho = float(np.clip(rho, *_CORRELATION))
    return (1 + rho) / (1 - rho)


def student(count: int, tail: float = TAIL) -> float:
    """The quantile of Student's t for the mean of `count` values, beyond which on either side is `tail`."""
    return float(special.stdtrit(count - 1, 1 - tail))


def gamma(probability: float, shape: float) -> float:
    """The quantile of a gamma distribution: how many of a Poisson process's mean gaps `shape` gaps take."""
    return float(special.gammaincinv(shape, probability))
