"""Searches for the highest request rate that a server sustains."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tuner.core.loads import Load, RequestRate
from tuner.core.slo import SLO
from tuner.measure.plan import Plan
from tuner.measure.points import OperatingPoint
from tuner.measure.sweep import rise

# First rate, as a share of the highest throughput of a closed loop; bursty open loops get slightly less than that.
_START = 0.9
_STEP_UP, _STEP_DOWN = 1 / 0.9, 0.5
_LEVELS = 6
# The search ends when the highest sustained and the lowest failing rate are within this factor. Closer rates differ by
# noise only.
_CLOSE = 1.02
_DIGITS = 3


def highest_rate(*, slo: SLO, max_concurrency: int, flat_from: int = 1) -> Plan[Load, None]:
    """Search for the highest request rate that the server sustains.

    A closed loop finds the capacity: concurrency doubles until throughput stops growing or the SLO is violated. Then up
    to 6 levels of Poisson arrivals bisect between sustained and failing rates; see `highest_sustained` for the outcome.

    Args:
        slo: The limits that must hold; may be empty.
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
    """The point at the highest sustained request rate; None if none is sustained."""
    sustained = [point for point in points if is_sustained(point, slo)]
    return max(sustained, key=lambda point: point.load.level, default=None)


def is_sustained(point: OperatingPoint, slo: SLO) -> bool:
    """Whether the server kept up with an open loop, within the SLO."""
    return point.kept_up is True and point.holds(slo)


def _between(sustained: float, broken: float) -> float:
    if not sustained:
        return broken * _STEP_DOWN
    if math.isinf(broken):
        return sustained * _STEP_UP
    return math.sqrt(sustained * broken)


def rounded(per_s: float) -> float:
    """A rate rounded to 3 significant digits."""
    return float(f"{per_s:.{_DIGITS}g}")
