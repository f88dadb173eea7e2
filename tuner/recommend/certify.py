"""Certifies a rate of Poisson arrivals that the best config serves within the SLO, at 99 % confidence.

A closed loop finds capacity, but its clients wait when the server is slow; real users do not. So the best config is
launched once more and offered Poisson arrivals at rates around its throughput. Near capacity, clumped arrivals queue
and latency grows without bound. If the closed loop does not use the whole capacity, the certified rate may be higher
than its throughput.

Each rate is offered until its test decides, and several rates are tried. The test is valid at any time
(`tuner.stats.slo_verdict`), and corrected for all rates. So the probability is at most 1 % that a rate is certified at
which this server violates the SLO.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from tuner.core.loads import RequestRate
from tuner.core.slo import SLO
from tuner.measure.highest_rate import rounded
from tuner.measure.plan import Plan
from tuner.measure.points import OperatingPoint, rounds_together
from tuner.measure.work import TrialTerms
from tuner.stats.slo_verdict import SLOTest, Verdict

LEVELS = 6
"""The most rates that are tried."""

# Shares of the closed loop's throughput: the first rate, and an upper bound. Last, the factor after a breaking rate.
_START, _HIGHEST, _STEP_DOWN = 0.9, 1.1, 0.8
# The search ends where the lowest breaking rate is within this factor of the highest certified one.
_CLOSE = 1.03
# The most times that a rate is offered while its test is open.
_REPEATS = 10


@dataclass(frozen=True)
class Certification:
    """The loads of a certification, for a piece of work; see `LoadPlan`.

    Attributes:
        requests_per_s: The server's throughput in a closed loop, in requests/s.
    """

    requests_per_s: float
    is_cut: bool = False

    def plan(
        self, terms: TrialTerms, effective: model_config_pb2.ModelConfig, until: float
    ) -> Plan[RequestRate, OperatingPoint | None]:
        """See `LoadPlan`; the result is that of `certify`."""
        del effective
        return certify(self.requests_per_s, slo=terms.slo, until=until)


def certify(
    requests_per_s: float, *, slo: SLO, until: float, now: Callable[[], float] = time.monotonic
) -> Plan[RequestRate, OperatingPoint | None]:
    """Find the highest rate at which tests show that one server keeps up and holds the SLO.

    Rates go down until one is certified, then the search bisects between that and the lowest breaking rate.

    Args:
        requests_per_s: The server's throughput in a closed loop, in requests/s.
        slo: The limits; may be empty.
        until: Deadline, by `now`. Levels that would end later are not begun, except for the first one.
        now: The clock, in seconds.

    Returns:
        The point at the highest certified rate; None when none was certified in time.
    """
    time_left = _TimeLeft(until, now)
    best: OperatingPoint | None = None
    holding, breaking, per_s = 0.0, _HIGHEST, _START
    for level in range(LEVELS):
        if level and not time_left:
            break
        point = yield from _decided(RequestRate(rounded(per_s * requests_per_s)), slo, time_left)
        if is_certified(point, slo):
            best, holding = point, per_s
        else:
            breaking = per_s
        if breaking <= _CLOSE * holding:
            break
        per_s = math.sqrt(holding * breaking) if holding else breaking * _STEP_DOWN
    return best


def is_certified(point: OperatingPoint, slo: SLO) -> bool:
    """Whether the server kept up, answered all requests, and holds the SLO at 99 % confidence.

    The test is corrected for `LEVELS` rates (Bonferroni), since any of them may be certified.
    """
    is_shown = not slo.root or point.verdict(slo, among=LEVELS) is Verdict.HOLDS
    return bool(point.kept_up) and not point.errors and point.holds(slo) and is_shown


class _TimeLeft:
    """Whether another level ends in time, if it takes as long as the longest level so far."""

    def __init__(self, until: float, now: Callable[[], float]) -> None:
        self._until, self._now = until, now
        self._longest_s = 0.0

    def __bool__(self) -> bool:
        return self._now() + self._longest_s <= self._until

    def timed(self, rate: RequestRate) -> Plan[RequestRate, OperatingPoint]:
        """Measure a rate, and record the time that it takes."""
        began = self._now()
        point = yield rate
        self._longest_s = max(self._longest_s, self._now() - began)
        return point


def _decided(rate: RequestRate, slo: SLO, time_left: _TimeLeft) -> Plan[RequestRate, OperatingPoint]:
    """Measure a rate, and repeat it while its test is open; all repeats count together."""
    repeats = [point := (yield from time_left.timed(rate))]
    while len(repeats) < _REPEATS and _may_be_certified(point, slo) and time_left:
        repeats.append((yield from time_left.timed(rate)))
        limits = tuple(SLOTest.added(tests) for tests in zip(*(repeat.limits for repeat in repeats), strict=True))
        point = rounds_together(repeats).model_copy(update={"limits": limits})
    return point


def _may_be_certified(point: OperatingPoint, slo: SLO) -> bool:
    """Whether the rate would be certified if its open test held."""
    passes = point.kept_up and not point.errors and point.holds(slo)
    return bool(passes and slo.root and point.verdict(slo, among=LEVELS) is Verdict.OPEN)
