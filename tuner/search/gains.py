"""How much each candidate may gain, by what is expected of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tuner.search.twin.forecast import Curves

_DRAWS = 32
# By Little's law who does more answers sooner, so that errors of both are mostly of one cause.
_TOGETHER = -0.8
_LATENCIES = 96

Values = NDArray[np.float64]
"""By candidate (rows) and draw (columns), what it is worth."""


@dataclass(frozen=True)
class Gains:
    """By candidate, as shares of what is best so far.

    Attributes:
        expected: The mean, of those draws that gain nothing as well.
        likely: The probability that it gains more than `worthwhile`.
    """

    expected: NDArray[np.float64]
    likely: NDArray[np.float64]


def gains(values: Values, measured: NDArray[np.bool_], worthwhile: float) -> Gains:
    """What each candidate gains over the best of those that were measured."""
    best = float(np.max(values[measured].mean(axis=1), initial=0.0))
    if best <= 0:
        # Nothing is worth anything yet: what may be worth most, as often as it may.
        share = values / max(float(values.max()), 1e-9)
        return Gains(share.mean(axis=1), (share > 0).mean(axis=1))
    over = values / best - 1
    return Gains(np.maximum(over, 0.0).mean(axis=1), (over > worthwhile).mean(axis=1))


def within_limit(curves: Curves, limit_ms: float, seed: int) -> Values:
    """Throughput within a limit on the latency, in inferences/s; 0 where none is.

    Between the highest load within it and the next one both quantities are taken to go as powers of the load.
    """
    throughput, latency = _drawn(curves, seed)
    limit = math.log(limit_ms)
    holds = latency <= limit
    best = np.where(holds, throughput, -np.inf).max(axis=1)
    here, there = latency[:, :-1], latency[:, 1:]
    edge = holds[:, :-1] & (there > limit) & np.isfinite(there)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (limit - here) / (there - here)
        between = throughput[:, :-1] * (1 - share) + throughput[:, 1:] * share
    best = np.maximum(best, np.where(edge, between, -np.inf).max(axis=1, initial=-np.inf))
    worth: Values = np.exp(best)  # of nothing at all, 0
    return worth


def dominated(curves: Curves, reference_ms: float, front: NDArray[np.float64], seed: int) -> Values:
    """The hypervolume with each candidate, in inferences/s times ms.

    Args:
        curves: What is expected of candidates.
        reference_ms: Where it ends.
        front: Points so far, of latency in ms and throughput.
        seed: Of the draws.
    """
    throughput, latency = _drawn(curves, seed)
    grid = np.geomspace(max(1e-3, float(np.nanmin(np.exp(latency)))), reference_ms, _LATENCIES)
    widths = np.diff(grid)
    now = np.zeros(_LATENCIES - 1)
    for latency_ms, reached in front:
        now = np.where(grid[:-1] >= latency_ms, np.maximum(now, reached), now)
    reached = np.exp(throughput)
    volume = np.zeros(throughput.shape[::2])
    for place in range(_LATENCIES - 1):
        within = np.where(latency <= math.log(grid[place]), reached, 0.0).max(axis=1)
        volume += np.maximum(within, now[place]) * widths[place]
    return volume


def _drawn(curves: Curves, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of throughput and latency by candidate, load, and draw; the worst where nothing is expected."""
    from scipy.stats import qmc  # noqa: PLC0415 (it takes longer to import than all else that a command does)

    normal = ndtri(qmc.Sobol(2, seed=seed).random(_DRAWS).clip(1e-6, 1 - 1e-6))
    one, other = normal.T
    both = _TOGETHER * one + math.sqrt(1 - _TOGETHER**2) * other
    throughput = curves.throughput[:, :, None] + curves.throughput_deviation[:, :, None] * one
    # Luck makes no cores; what is expected anyway counts as it is.
    most = np.maximum(curves.most[:, None], curves.throughput)[:, :, None]
    throughput = np.minimum(throughput, most)
    latency = curves.latency[:, :, None] + curves.latency_deviation[:, :, None] * both
    return np.nan_to_num(throughput, nan=-np.inf, neginf=-np.inf), np.nan_to_num(latency, nan=np.inf, posinf=np.inf)
