"""Which operating point is best, and by how much it beats the user's config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.measure.limit_test import Verdict
from tuner.measure.record import Interval
from tuner.search.front import TrialPoint, pareto_front, points_of, usable_points
from tuner.search.gain import compared
from tuner.search.shift import Shift
from tuner.search.verification import Verification
from tuner.slo import SLO, Percentile
from tuner.trial import TrialResult

# The shares of the highest throughput that are nearly as much, and as much, if intervals overlap.
_NEARLY, _ALIKE = 0.9, 0.97
NEAR = 1.25
"""A point is near a limit that it would break if its latency were so many times as high."""
# What throughput counts for where no test shows that the SLO holds, where luck may have made it high, and where most
# of it may be luck beyond what is so of all.
_UNSURE, _UNCONFIRMED, _ONCE = 0.8, 0.85, 0.58


@dataclass(frozen=True)
class Recommendation:
    """What a study says, for one SLO.

    Attributes:
        baseline: The best point of the user's config under the same SLO; None when it holds it at no load.
        best: The point of highest throughput that holds the SLO; None when none does.
        gain: Throughput of `best` over that of `baseline`; None when either is missing.
        pairs: How many rounds, in which both ran side by side, the gain is from; 0: from each one's own launches.
        front: The points that no other beats in both latency and throughput.
    """

    slo: SLO
    baseline: TrialPoint | None
    best: TrialPoint | None
    gain: Interval | None
    front: tuple[TrialPoint, ...]
    pairs: int = 0


def recommend(
    trials: Sequence[TrialResult],
    slo: SLO,
    verified: Sequence[Verification] = (),
    max_gpu_memory: int | None = None,
) -> Recommendation:
    """Read a recommendation off the trials of a study, of which the first is the baseline.

    Of a point that was verified counts what the verification says; see `best_of`. One that gives less throughput than
    the baseline gives way to it, unless it is surely quicker and no surely less, or the baseline failed: no config is
    worth a change for nothing. A trial that took more than `max_gpu_memory` bytes of a GPU is neither best nor on the
    front.
    """
    own = [point for trial in trials[:1] for point in points_of(trial, verified)]
    points = usable_points(trials, verified, max_gpu_memory)
    shift = Shift.of(trials, verified, slo.percentile)
    baseline, best = (best_of(some, slo, shift) for some in (own, points))
    front = pareto_front(points, slo.percentile)
    if best is None or baseline is None:
        return Recommendation(slo, baseline, best, None, front)
    gain = compared(best, baseline, verified)
    if baseline in points and _gives_way(best, gain.ratio, baseline, slo.percentile):
        best, gain = baseline, compared(baseline, baseline, verified)
    return Recommendation(slo, baseline, best, gain.ratio, front, gain.pairs)


def _gives_way(best: TrialPoint, gain: Interval, baseline: TrialPoint, percentile: Percentile) -> bool:
    quicker = best.point.latency_ms[percentile].high < baseline.point.latency_ms[percentile].low
    return gain.high < 1 or (gain.value < 1 and not quicker)


def best_of(points: Iterable[TrialPoint], slo: SLO, shift: Shift) -> TrialPoint | None:
    """The best point, of some that were measured again and others that were not; None when none holds the SLO.

    What was measured again for this SLO is as good as its throughput, as far as that can be relied on: one of which it
    is not sure that it holds the SLO must give a quarter more, and one that was not measured after it had been chosen
    some more, too. Their intervals, over few launches, are too wide to tell rivals by. What was measured once is the
    luckiest of many, and must give nearly twice as much; it is out where the same config, measured again, breaks the
    SLO under no more load, and gives way to what was measured again where it would break it by how that differs from
    the search.

    Args:
        points: Of trials.
        slo: The limits.
        shift: Between the search and what was measured again.
    """
    points, asked = tuple(points), set(slo.limits)
    again = [p for p in points if p.verified and {test.limit for test in p.point.limits} == asked]
    verified = max((p for p in again if holds(p, slo)), key=lambda p: _worth(p, slo), default=None)
    broken = [p for p in again if not holds(p, slo)]
    once = [p for p in points if p not in again and not is_past(p, broken)]
    likely = best_point((p for p in once if _is_likely(p, slo, shift)), slo)
    if verified and likely and likely.point.throughput.value * shift.throughput * _ONCE > _worth(verified, slo):
        return likely
    return verified or likely or best_point(once, slo)


def _is_likely(each: TrialPoint, slo: SLO, shift: Shift) -> bool:
    """Whether a point that was not measured again for this SLO is likely to hold it then."""
    return each.verified or each.point.holds(slo, slower=shift.latency)


def is_past(each: TrialPoint, broken: Iterable[TrialPoint]) -> bool:
    """Whether one of some points, which break the SLO, is of the same trial under no more load."""
    return any(
        past.trial.number == each.trial.number
        and isinstance(past.point.load, type(each.point.load))
        and past.point.load.level <= each.point.load.level
        for past in broken
    )


def _worth(each: TrialPoint, slo: SLO) -> float:
    sure, confirmed = 1.0 if is_certain(each, slo) else _UNSURE, 1.0 if each.confirmed else _UNCONFIRMED
    return sure * confirmed * each.point.throughput.value


def best_point(points: Iterable[TrialPoint], slo: SLO) -> TrialPoint | None:
    """The best point of those that hold the SLO; None when none does.

    What is near a limit may keep it by luck, and gives way to what is not and may give nearly as much. Of those the
    best is the quickest that gives as much as any: no throughput is given away for a latency that nobody asked for.
    Where all are near a limit, it is the quickest that may give nearly as much.
    """
    holding = [p for p in points if holds(p, slo)]
    rivals = _rivals(holding, _NEARLY)
    with_room = [p for p in rivals if p.point.holds(slo, slower=NEAR)]
    return min(_rivals(with_room, _ALIKE) or rivals, key=lambda p: p.latency_ms(slo.percentile), default=None)


def _rivals(points: Sequence[TrialPoint], share: float) -> list[TrialPoint]:
    """Those that give a share of the highest throughput, and whose intervals overlap its own.

    Where intervals are wide, all would overlap.
    """
    if not points:
        return []
    rates = [p.point.throughput for p in points]
    highest = max(rates, key=lambda rate: rate.value)
    least = share * highest.value
    return [p for p, rate in zip(points, rates, strict=True) if rate.high >= highest.low and rate.value >= least]


def is_certain(point: TrialPoint, slo: SLO) -> bool:
    """Whether a test says that a point keeps every limit; else it is what was measured that says so."""
    return point.point.verdict(slo) is Verdict.HOLDS


def holds(point: TrialPoint, slo: SLO) -> bool:
    """Whether a point keeps every limit: by what was measured, unless a test says that it surely does not.

    What is reported of one that was verified leaves out the rounds that chose it; those count here, too, so that it is
    not the luck of the others that it holds.
    """
    if not point.point.holds(slo) or point.point.verdict(slo) is Verdict.BREAKS:
        return False
    tests = [test for test in point.point.limits if test.limit in slo.limits]
    return not point.verified or all(test.over <= test.allowed * test.requests for test in tests)
