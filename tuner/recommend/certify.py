"""Certifies a rate: which rate of Poisson arrivals the best config surely serves within the SLO.

A closed loop finds capacity, but its clients wait when the server is slow, and nobody else's do. So the best config is
launched once more, and offered requests at times of their own, at rates around its throughput: near to what a server
can do, arrivals that clump wait for each other, and latency grows without bound. Where it can do more than the closed
loop asked for, a rate may be higher than that got.

Each rate is offered until a test can tell, and several rates are tried. The test may be asked at any time
(`tuner.stats.limit_test`), and allows for all rates: in 1 % of cases at most a rate is certified at which this server
does not hold the SLO.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from tuner.core.loads import Load, RequestRate
from tuner.core.slo import SLO
from tuner.measure.highest_rate import rounded
from tuner.measure.points import OperatingPoint
from tuner.recommend.verification import rounds_together
from tuner.stats.limit_test import LimitTest, Verdict

LEVELS = 6
"""So many rates are tried at most."""

# Of the closed loop's throughput: the first rate, one that none reaches, and the next one below a rate that breaks.
_START, _HIGHEST, _STEP_DOWN = 0.9, 1.1, 0.8
# Where the highest rate that holds and the lowest that does not are this close, noise decides.
_CLOSE = 1.03
# So often a rate is offered at most until a test can say whether it holds.
_REPEATS = 10


def certify(
    measure: Callable[[Load], OperatingPoint],
    requests_per_s: float,
    *,
    slo: SLO,
    until: float,
    now: Callable[[], float] = time.monotonic,
) -> OperatingPoint | None:
    """Find the highest rate that one server is shown to keep up with, within the SLO.

    Rates go down until one holds, and then close in between that and the lowest that does not.

    Args:
        measure: Measures one load; what it raises ends the search.
        requests_per_s: What a closed loop got from it.
        slo: The limits, maybe none.
        until: When to be done, by `now`: no level is begun that would take longer; the first is in any case.
        now: The clock, in seconds.

    Returns:
        The point at that rate; None when none was found in the time.
    """
    levels = _Levels(measure, until, now)
    best: OperatingPoint | None = None
    holding, breaking, per_s = 0.0, _HIGHEST, _START
    for level in range(LEVELS):
        if level and not levels.has_time:
            break
        point = levels.measured(RequestRate(rounded(per_s * requests_per_s)), slo)
        if is_certified(point, slo):
            best, holding = point, per_s
        else:
            breaking = per_s
        if breaking <= _CLOSE * holding:
            break
        per_s = math.sqrt(holding * breaking) if holding else breaking * _STEP_DOWN
    return best


def is_certified(point: OperatingPoint, slo: SLO) -> bool:
    """Whether the server kept up, answered all, and surely holds the SLO.

    A rate is one of `LEVELS` that are tried until one is certified, so each test is stricter than one alone.
    """
    sure = not slo.root or point.verdict(slo, among=LEVELS) is Verdict.HOLDS
    return bool(point.kept_up) and not point.errors and point.holds(slo) and sure


class _Levels:
    """Measures level after level, and knows whether there is time for another."""

    def __init__(self, measure: Callable[[Load], OperatingPoint], until: float, now: Callable[[], float]) -> None:
        self._measure, self._until, self._now = measure, until, now
        self._longest_s = 0.0

    @property
    def has_time(self) -> bool:
        """Whether another level would be over in time, if it takes as long as any so far."""
        return self._now() + self._longest_s <= self._until

    def measured(self, load: Load, slo: SLO) -> OperatingPoint:
        """The point at a rate, which is offered again while its tests cannot tell; all repeats count together."""
        repeats = [point := self._once(load)]
        while len(repeats) < _REPEATS and _may_be_certified(point, slo) and self.has_time:
            repeats.append(self._once(load))
            limits = tuple(LimitTest.added(tests) for tests in zip(*(each.limits for each in repeats), strict=True))
            point = rounds_together(repeats).model_copy(update={"limits": limits})
        return point

    def _once(self, load: Load) -> OperatingPoint:
        began = self._now()
        point = self._measure(load)
        self._longest_s = max(self._longest_s, self._now() - began)
        return point


def _may_be_certified(point: OperatingPoint, slo: SLO) -> bool:
    """Whether only the test cannot tell yet."""
    fine = point.kept_up and not point.errors and point.holds(slo)
    return bool(fine and slo.root and point.verdict(slo, among=LEVELS) is Verdict.OPEN)
