"""The arrival times of open loops."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

from tuner.core.loads import Distribution, OpenLoop, Ramp, Replay, RequestRate


def arrivals(load: OpenLoop, seed: int) -> Iterator[int]:
    """The due times in ns since the start, in ascending order; unlimited except for ramps and some replays.

    Poisson arrivals at a varying rate are those at rate 1, transformed by the inverse of the integrated rate (E.
    Çinlar, Introduction to Stochastic Processes, 1975).

    Args:
        load: The load.
        seed: The same seed gives the same Poisson arrivals.
    """
    if isinstance(load, RequestRate):
        for unit in _units(load.distribution, seed):
            yield round(unit / load.per_s * 1e9)
    elif isinstance(load, Ramp):
        yield from _ramp(load, seed)
    else:
        yield from _replay(load)


def _units(distribution: Distribution, seed: int) -> Iterator[float]:
    """Arrival times at rate 1."""
    if distribution == "constant":
        yield from map(float, itertools.count())
    gap = random.Random(seed).expovariate  # noqa: S311 (no secret)
    at = 0.0
    while True:
        at += gap(1.0)
        yield at


def _ramp(load: Ramp, seed: int) -> Iterator[int]:
    slope = (load.to_per_s - load.from_per_s) / load.over_s
    total = (load.from_per_s + load.to_per_s) / 2 * load.over_s
    for unit in itertools.takewhile(lambda unit: unit < total, _units(load.distribution, seed)):
        # Solves from * t + slope * t^2 / 2 = unit, in the form that is exact for a slope of 0, too.
        root = math.sqrt(max(0.0, load.from_per_s**2 + 2 * slope * unit))
        yield round(2 * unit / (load.from_per_s + root) * 1e9) if unit else 0


def _replay(load: Replay) -> Iterator[int]:
    if load.period_ns is None:
        yield from load.offsets_ns
        return
    for start_ns in itertools.count(0, load.period_ns):
        for offset_ns in load.offsets_ns:
            yield start_ns + offset_ns
