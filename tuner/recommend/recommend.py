"""Which operating point is best, and by how much it beats the user's config."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tuner.core.record import Interval
from tuner.core.slo import SLO, Percentile
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import headroom
from tuner.recommend.front import TrialPoint, pareto_front, points_of, smoothed_points, usable_points
from tuner.recommend.gain import Comparison, compared
from tuner.recommend.shift import Shift
from tuner.recommend.verification import Verification
from tuner.stats.limit_test import Verdict

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
        rates: The throughputs of both whose quotient the gain is, in inferences/s. They may differ from those of the
            two points: pairs are a part of the rounds, and what was launched once counts by its whole curve.
        front: The points that no other beats in both latency and throughput.
    """

    slo: SLO
    baseline: TrialPoint | None
    best: TrialPoint | None
    gain: Interval | None
    front: tuple[TrialPoint, ...]
    pairs: int = 0
    rates: tuple[float, float] | None = None


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
    baseline, best = best_of_one(own, slo, shift), best_of(points, slo, shift)
    front = pareto_front(points, slo.percentile)
    if best is None or baseline is None:
        return Recommendation(slo, baseline, best, None, front)
    if best.trial.number == 0:
        baseline, gain = best, compared(best, best, verified)
        return Recommendation(slo, baseline, best, gain.ratio, front, rates=gain.rates)
    baseline, gain = versus(best, baseline, own, slo, verified)
    if baseline in points and _gives_way(best, gain.ratio, baseline, slo.percentile):
        best, gain = baseline, compared(baseline, baseline, verified)
    return Recommendation(slo, baseline, best, gain.ratio, front, gain.pairs, gain.rates)


def versus(
    best: TrialPoint, other: TrialPoint, points: Iterable[TrialPoint], slo: SLO, verified: Sequence[Verification]
) -> tuple[TrialPoint, Comparison]:
    """By how much a point beats another config, which is taken at its best load, too.

    That is the one that was chosen for it, or that of `best` itself where it was measured there and may hold the SLO: a
    load that was chosen too low must not make a gain. Where it is not sure whether it holds the SLO there, both count,
    and the value is that of the load between at which its latency reaches the limit.

    Args:
        best: The one.
        other: The other config at the load that was chosen for it.
        points: All of the other config.
        slo: The limits.
        verified: What was measured again.

    Returns:
        The other's point that counts, and the comparison with it.
    """
    to_other = _widened(compared(best, other, verified), best, other, slo)
    equal = next((p for p in points if p.verified and p.point.load == best.point.load), None)
    if equal is None or equal.point.load == other.point.load or equal.point.verdict(slo) is Verdict.BREAKS:
        return other, to_other
    to_equal = compared(best, equal, verified)
    if holds(equal, slo):
        if to_equal.pairs and not to_other.pairs:
            return equal, to_equal
        return min((other, to_other), (equal, to_equal), key=lambda each: each[1].ratio.value)
    share = min(_share_within(other, equal, name, limit_ms) for name, limit_ms in slo.limits)
    between = to_other.ratio.value ** (1 - share) * to_equal.ratio.value**share
    both = (to_other.ratio, to_equal.ratio)
    ratio = Interval(value=between, low=min(each.low for each in both), high=max(each.high for each in both))
    best_rate = to_other.rates[0] ** (1 - share) * to_equal.rates[0] ** share
    return other, Comparison(ratio, (best_rate, best_rate / between), min(to_other.pairs, to_equal.pairs))


def _widened(found: Comparison, best: TrialPoint, other: TrialPoint, slo: SLO) -> Comparison:
    """Under loads of their own, each may give more than was measured, until it breaks the SLO."""
    if best.point.load == other.point.load:
        return found
    more, others = (headroom(each.trial.curve, each.point, slo) for each in (best, other))
    ratio = found.ratio
    widened = Interval(value=ratio.value, low=ratio.low / others, high=ratio.high * more)
    return replace(found, ratio=widened)


def _share_within(lower: TrialPoint, upper: TrialPoint, name: Percentile, limit_ms: float) -> float:
    """How much of the way from one load to a higher one a latency is within its limit, by logarithms; 0 to 1."""
    below, above = lower.latency_ms(name), upper.latency_ms(name)
    if above <= max(below, limit_ms):
        return 1.0 if above <= limit_ms else 0.0
    return min(1.0, max(0.0, math.log(limit_ms / below) / math.log(above / below)))


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


def best_of_one(points: Iterable[TrialPoint], slo: SLO, shift: Shift) -> TrialPoint | None:
    """The best point of one trial, by the curve through all of its points: one of them may have been lucky.

    Args:
        points: Of the trial.
        slo: The limits.
        shift: See `best_of`.
    """
    points = tuple(points)
    # What is shown of a throughput that may be 0 would not be what the curve says of it, and what a gain is from.
    known = tuple(each for each in points if each.point.throughput.low > 0)
    chosen = best_of(smoothed_points(known or points), slo, shift)
    return next((each for each in points if chosen and each.point.load == chosen.point.load), None)


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
    Where all are near a limit, it is the quickest that may give nearly as much. None of them is one that another beats
    in both: only a wider interval would make it a rival where that one is none.
    """
    holding = pareto_front((p for p in points if holds(p, slo)), slo.percentile)
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
