"""The expected gain of each candidate, from predicted curves with their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tuner.search.twin.forecast import Curves

DRAWS = 32
"""Samples of each candidate's curve (quasi-Monte Carlo); a power of 2."""
# Larger gains count as this share, so that unlikely large gains do not outweigh likely ones.
_MOST_GAIN = 0.3
# Gains above this share are clear.
_CLEAR = 0.05
# Where no measured candidate holds the limit: the weights of coming nearer to it, and of throughput, beside holding it.
_NEARER, _THROUGHPUT = 0.1, 0.1
# A candidate that has the value of a measured one, within a share, in so many of the draws gains nothing by its launch:
# this share of its gain is left. For example, larger batches than the loads within the limit fill change nothing.
_EQUAL, _EQUAL_DRAWS, _EQUAL_GAIN = 0.02, 0.9, 0.05
# The probability from which a candidate counts as holding the limit.
_HOLDS = 0.5
# Correlation of the errors of throughput and latency: by Little's law, higher throughput means lower latency.
_CORRELATION = -0.8
# Grid points of the latency axis for the hypervolume.
_LATENCIES = 96

Values = NDArray[np.float64]
"""The value of each candidate (rows) in each draw (columns)."""


@dataclass(frozen=True)
class Gains:
    """Gains by candidate, as shares of the best value so far.

    Attributes:
        expected: The expected improvement: the mean over draws; losses count as 0, large gains as `_MOST_GAIN`.
        clear: The same of what gains exceed `_CLEAR` by: launches differ by as much, and variants of the best candidate
            promise many small gains.
        likely: The probability of a gain above `worthwhile`.
    """

    expected: NDArray[np.float64]
    clear: NDArray[np.float64]
    likely: NDArray[np.float64]


def gains(values: Values, measured: NDArray[np.bool_], worthwhile: float) -> Gains:
    """The gain of each candidate over the best measured one.

    While probably none of these holds the limit, the gain is the probability of holding it. Where that is small for
    all, candidates that come nearer to the limit count more.

    Args:
        values: (n, draws) values of the candidates; negative: the excess over the limit.
        measured: (n,) whether a candidate was measured.
        worthwhile: The least gain that counts, as a share.
    """
    best = float(np.max(values[measured].mean(axis=1), initial=0.0))
    if not any_holds(values[measured]):
        excess = np.maximum(-values, 0.0)
        least = float(np.min(excess[measured].mean(axis=1), initial=np.inf))
        nearer = np.clip(1 - excess / max(least, 1e-9), 0.0, 1.0)
        share = np.maximum(values, 0.0) / max(float(values.max()), 1e-9)
        expected = np.where(values > 0, 1.0 + _THROUGHPUT * share, _NEARER * nearer).mean(axis=1)
        return Gains(expected, expected, (values > 0).mean(axis=1))
    over = values / best - 1
    left = np.where(_known(values, measured, best), _EQUAL_GAIN, 1.0)
    expected, clear = (left * np.clip(over - least, 0.0, _MOST_GAIN).mean(axis=1) for least in (0.0, _CLEAR))
    return Gains(expected, clear, left * (over > worthwhile).mean(axis=1))


def _known(values: Values, measured: NDArray[np.bool_], best: float) -> NDArray[np.bool_]:
    """Whether each candidate is equal to another one that was measured."""
    known = np.zeros(len(values), bool)
    for each in values[measured]:
        known |= (np.abs(values - each) <= _EQUAL * best).mean(axis=1) >= _EQUAL_DRAWS
    return known & ~measured


def any_holds(measured: Values) -> bool:
    """Whether one of the measured candidates probably holds the limit."""
    return bool(((measured > 0).mean(axis=1) >= _HOLDS).any())


def within_limit(curves: Curves, limit_ms: float, seed: int, draws: int = DRAWS) -> Values:
    """The highest throughput within a latency limit, in inferences/s.

    If no load holds it, the value is negative: the logarithm of the limit over the lowest latency.

    Between the highest load within the limit and the next one, throughput and latency are interpolated in logarithms.

    Args:
        curves: Predicted curves of the candidates.
        limit_ms: The limit on latency, in ms.
        seed: The seed of the draws.
        draws: Number of draws.
    """
    throughput, latency = _drawn(curves, seed, draws)
    limit = math.log(limit_ms)
    holds = latency <= limit
    best = np.where(holds, throughput, -np.inf).max(axis=1)
    here, there = latency[:, :-1], latency[:, 1:]
    edge = holds[:, :-1] & (there > limit) & np.isfinite(there)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (limit - here) / (there - here)
        between = throughput[:, :-1] * (1 - share) + throughput[:, 1:] * share
    best = np.maximum(best, np.where(edge, between, -np.inf).max(axis=1, initial=-np.inf))
    values: Values = np.where(np.isfinite(best), np.exp(best), limit - latency.min(axis=1))
    return values


def at_rate(curves: Curves, least_per_s: float, limit_ms: float, seed: int, draws: int = DRAWS) -> Values:
    """The inverse of the latency at a fixed rate, in 1/s; 0 if the server does not keep up, or beyond a limit.

    Args:
        curves: Predicted curves of the candidates, of which only the first load counts.
        least_per_s: Throughput below which a server does not keep up, in inferences/s.
        limit_ms: The limit on latency, in ms; infinite: none.
        seed: The seed of the draws.
        draws: Number of draws.
    """
    _, latency = _drawn(curves, seed, draws)
    keeps_up = np.minimum(curves.throughput[:, 0], curves.most) >= math.log(least_per_s)
    within = keeps_up[:, None] & (latency[:, 0] <= math.log(limit_ms))
    values: Values = np.where(within, 1e3 * np.exp(-latency[:, 0]), 0.0)
    return values


def dominated(curves: Curves, reference_ms: float, front: NDArray[np.float64], seed: int, draws: int = DRAWS) -> Values:
    """The hypervolume of the front with each candidate added, in inferences/s times ms.

    Args:
        curves: Predicted curves of the candidates.
        reference_ms: The reference latency of the hypervolume, in ms.
        front: (n, 2) the front so far: latency in ms, and throughput in inferences/s.
        seed: The seed of the draws.
        draws: Number of draws.
    """
    throughput, latency = _drawn(curves, seed, draws)
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


def _drawn(curves: Curves, seed: int, draws: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of throughput and latency by candidate, load and draw; the worst values without a prediction."""
    one, other = _normal(seed, draws).T
    both = _CORRELATION * one + math.sqrt(1 - _CORRELATION**2) * other
    throughput = curves.throughput[:, :, None] + curves.throughput_deviation[:, :, None] * one
    # No draw exceeds the capacity of cores and GPUs, unless the prediction itself does.
    most = np.maximum(curves.most[:, None], curves.throughput)[:, :, None]
    throughput = np.minimum(throughput, most)
    latency = curves.latency[:, :, None] + curves.latency_deviation[:, :, None] * both
    return np.nan_to_num(throughput, nan=-np.inf, neginf=-np.inf), np.nan_to_num(latency, nan=np.inf, posinf=np.inf)


@lru_cache(maxsize=64)
def _normal(seed: int, draws: int) -> NDArray[np.float64]:
    """(draws, 2) standard normal deviates that fill the plane evenly."""
    from scipy.stats import qmc  # noqa: PLC0415 (importing it takes longer than the rest of a command)

    normal: NDArray[np.float64] = ndtri(qmc.Sobol(2, seed=seed).random(draws).clip(1e-6, 1 - 1e-6))
    return normal
