"""The highest request rate that a server sustains: which loads to measure to find it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tuner.core.loads import Load, RequestRate
from tuner.core.slo import SLO
from tuner.measure.plan import Plan
from tuner.measure.points import OperatingPoint
from tuner.measure.sweep import rise

# Of what a closed loop gets at most; an open loop, whose requests come in clumps, gets next to that.
_START = 0.9
_STEP_UP, _STEP_DOWN = 1 / 0.9, 0.5
_LEVELS = 6
# Where the highest rate that holds and the lowest that does not are this close, noise decides.
_CLOSE = 1.02
_DIGITS = 3


def highest_rate(*, slo: SLO, max_concurrency: int, flat_from: int = 1) -> Plan[Load, None]:
    """Search for the highest request rate that the server sustains.

    A closed loop finds what the server can do at most: concurrency doubles until throughput has stopped growing or
    the SLO is broken. Then come Poisson arrivals at rates around that, by bisection between what is sustained and what
    is not, in up to 6 levels; see `highest_sustained` for the outcome.

    Args:
        slo: The limits that must hold, maybe none.
        max_concurrency: The highest concurrency to offer.
        flat_from: See `sweep`.
    """
    capacity = 0.0
    for point in (yield from rise(slo=slo, max_concurrency=max_concurrency, flat_from=flat_from)):
        if point.holds(slo) or not capacity:
            capacity = max(capacity, point.throughput.value / point.batch_size)
    sustained, broken = 0.0, math.inf
    per_s = _START * capacity
    for _ in range(_LEVELS):
        point = yield RequestRate(rounded(per_s))
        if is_sustained(point, slo):
            sustained = per_s
        else:
            broken = per_s
        if broken <= _CLOSE * sustained:
            return
        per_s = _between(sustained, broken)


def highest_sustained(points: Iterable[OperatingPoint], slo: SLO) -> OperatingPoint | None:
    """Of points at request rates, the one at the highest that is sustained; None when none is."""
    sustained = [point for point in points if is_sustained(point, slo)]
    return max(sustained, key=lambda point: point.load.level, default=None)


def is_sustained(point: OperatingPoint, slo: SLO) -> bool:
    """Whether a point shows an open loop that the server keeps up with, within the SLO."""
    return point.kept_up is True and point.holds(slo)


def _between(sustained: float, broken: float) -> float:
    if not sustained:
        return broken * _STEP_DOWN
    if math.isinf(broken):
        return sustained * _STEP_UP
    return math.sqrt(sustained * broken)


def rounded(per_s: float) -> float:
    """A rate to offer, with no more digits than it deserves."""
    return float(f"{per_s:.{_DIGITS}g}")
