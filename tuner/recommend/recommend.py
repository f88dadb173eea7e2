"""The recommendation: the best operating point of a study, and its gain over the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Interval
from tuner.core.slo import SLO, Limit, Percentile
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import headroom
from tuner.recommend.front import TrialPoint, pareto_front, points_of, smoothed_points, usable_points
from tuner.recommend.gain import GainEstimate, compared
from tuner.recommend.search_bias import SearchBias
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import Verdict

# Shares of the highest merit above which a point with an overlapping interval counts as a rival, and as equal.
_RIVAL, _EQUAL = 0.9, 0.97
NEAR = 1.25
"""A point is near a limit if latencies this many times as high would break it."""
# Weights of a merit: if no test shows that the SLO holds; and if it was not measured after it was chosen, as where it
# was launched only once. `benchmarks/picks.py` measures their effect.
_UNTESTED, _UNCONFIRMED = 0.8, 0.5


@dataclass(frozen=True)
class Recommendation:
    """The result of a study for one SLO.

    Attributes:
        slo: The limits.
        baseline: The best point of the user's config within the SLO; None: it violates the SLO at every load.
        best: The point to deploy: of the most merit within the SLO; None when no point holds it.
        gain: Merit of `best` over that of `baseline` (see `OperatingPoint.merit`); None when either is missing.
        front: The Pareto front of latency and the objective.
        pairs: Number of rounds with both side by side behind the gain; 0: it is from independent launches.
        merits: The two merits whose quotient is the gain. They may differ from those of the two points: pairs are a
            part of the rounds, and a single launch counts by its smoothed curve.
        objective: The objective.
    """

    slo: SLO
    baseline: TrialPoint | None
    best: TrialPoint | None
    gain: Interval | None
    front: tuple[TrialPoint, ...]
    pairs: int = 0
    merits: tuple[float, float] | None = None
    objective: Objective = THROUGHPUT

    @property
    def percentile(self) -> Percentile:
        """The latency percentile that decides: the minimized one, or the SLO's."""
        return self.objective.percentile_for(self.slo)


def recommend(
    trials: Sequence[TrialResult],
    slo: SLO,
    verified: Sequence[Verification] = (),
    max_gpu_memory: int | None = None,
    objective: Objective = THROUGHPUT,
) -> Recommendation:
    """Compute the recommendation from the trials of a study, the first of which is the baseline.

    Verified points count with their verified numbers; see `best_of`. The baseline is recommended unless the best point
    has more merit, or a lower latency (95 % intervals apart) at possibly equal merit. A trial that took more than
    `max_gpu_memory` bytes of a GPU is neither best nor on the front.
    """
    own = [point for trial in trials[:1] for point in points_of(trial, verified, objective)]
    points = usable_points(trials, verified, max_gpu_memory, objective)
    percentile = objective.percentile_for(slo)
    bias = SearchBias.of(trials, verified, percentile)
    baseline, best = best_of_one(own, slo, bias, objective), best_of(points, slo, bias, objective)
    front = pareto_front(points, percentile, objective)
    if best is None or baseline is None:
        return Recommendation(slo, baseline, best, None, front, objective=objective)
    if best.trial.number == 0:
        baseline, gain = best, compared(best, best, verified, objective)
        return Recommendation(slo, baseline, best, gain.ratio, front, merits=gain.merits, objective=objective)
    baseline, gain = versus(best, baseline, own, slo, verified, objective)
    if baseline in points and _baseline_wins(best, gain.ratio, baseline, percentile):
        best, gain = baseline, compared(baseline, baseline, verified, objective)
    return Recommendation(slo, baseline, best, gain.ratio, front, gain.pairs, gain.merits, objective)


def versus(  # noqa: PLR0917 (called at two places)
    best: TrialPoint,
    other: TrialPoint,
    points: Iterable[TrialPoint],
    slo: SLO,
    verified: Sequence[Verification],
    objective: Objective = THROUGHPUT,
) -> tuple[TrialPoint, GainEstimate]:
    """Compare a point with another config at that config's best load.

    That load is the chosen one, or the load of `best` if the other config was measured there and may hold the SLO.
    Otherwise a load chosen too low would look like a gain. If it is open whether it holds the SLO there, both loads
    count. Then the value is that of the load in between at which its latency reaches the limit.

    Args:
        best: The point to compare.
        other: The other config at the load that was chosen for it.
        points: All points of the other config.
        slo: The limits.
        verified: All relaunched points.
        objective: The objective.

    Returns:
        The other config's point, and the comparison with it.
    """
    to_other = _widened(compared(best, other, verified, objective), best, other, slo, objective)
    equal = next((p for p in points if p.verified and p.point.load == best.point.load), None)
    if equal is None or equal.point.load == other.point.load or equal.point.verdict(slo) is Verdict.BREAKS:
        return other, to_other
    to_equal = compared(best, equal, verified, objective)
    if holds(equal, slo):
        if to_equal.pairs and not to_other.pairs:
            return equal, to_equal
        return min((other, to_other), (equal, to_equal), key=lambda pair: pair[1].ratio.value)
    share = min(_share_within(other, equal, limit) for limit in slo.limits)
    between = to_other.ratio.value ** (1 - share) * to_equal.ratio.value**share
    both = (to_other.ratio, to_equal.ratio)
    ratio = Interval(value=between, low=min(pair.low for pair in both), high=max(pair.high for pair in both))
    merit = to_other.merits[0] ** (1 - share) * to_equal.merits[0] ** share
    return other, GainEstimate(ratio, (merit, merit / between), min(to_other.pairs, to_equal.pairs))


def _widened(gain: GainEstimate, best: TrialPoint, other: TrialPoint, slo: SLO, objective: Objective) -> GainEstimate:
    """Widen the interval at unequal loads by the merit that each config may gain within the SLO."""
    if best.point.load == other.point.load:
        return gain
    more, others = (
        headroom(trial_point.trial.curve, trial_point.point, slo, objective) for trial_point in (best, other)
    )
    ratio = gain.ratio
    widened = Interval(value=ratio.value, low=ratio.low / others, high=ratio.high * more)
    return replace(gain, ratio=widened)


def _share_within(lower: TrialPoint, upper: TrialPoint, limit: Limit) -> float:
    """Share (0 to 1) of the way between two loads up to which a latency keeps its limit, in logarithms."""
    below, above = (p.point.limitable_ms[limit.key].value for p in (lower, upper))
    if above <= max(below, limit.limit_ms):
        return 1.0 if above <= limit.limit_ms else 0.0
    return min(1.0, max(0.0, math.log(limit.limit_ms / below) / math.log(above / below)))


def _baseline_wins(best: TrialPoint, gain: Interval, baseline: TrialPoint, percentile: Percentile) -> bool:
    quicker = best.point.latency_ms[percentile].high < baseline.point.latency_ms[percentile].low
    return gain.high < 1 or (gain.value < 1 and not quicker)


def best_of(
    points: Iterable[TrialPoint], slo: SLO, bias: SearchBias, objective: Objective = THROUGHPUT
) -> TrialPoint | None:
    """The best of some points, verified or not; None when none holds the SLO.

    Points are ranked by merit times weights. A point verified for this SLO has the weight 0.8 if its test is open,
    and 0.5 if it was not measured after it was chosen, as it may be the luckiest of many. (Intervals over few launches
    are too wide to separate rivals.) So is a point that was launched once. It is excluded if the same config, verified
    under at most that load, violated the SLO. A verified point is preferred to it if the latency bias of the search
    would make it violate the SLO.

    Args:
        points: Points of any trials.
        slo: The limits.
        bias: The bias of the search.
        objective: The objective.
    """
    points, asked = tuple(points), set(slo.limits)
    again = [p for p in points if p.verified and {test.limit for test in p.point.limits} == asked]
    verified = max((p for p in again if holds(p, slo)), key=lambda p: _weighted(p, slo, objective), default=None)
    broken = [p for p in again if not holds(p, slo)]
    once = [p for p in points if p not in again and not is_past(p, broken)]
    likely = best_point((p for p in once if _is_likely(p, slo, bias)), slo, objective)
    if verified and likely:
        single = likely.merit(objective).value * bias.of_merit(objective) * _UNCONFIRMED
        return likely if single > _weighted(verified, slo, objective) else verified
    return verified or likely or best_point(once, slo, objective)


def best_of_one(
    points: Iterable[TrialPoint], slo: SLO, bias: SearchBias, objective: Objective = THROUGHPUT
) -> TrialPoint | None:
    """The best point of one trial, chosen on its smoothed curve, so that no single lucky point decides.

    Args:
        points: The points of the trial.
        slo: The limits.
        bias: See `best_of`.
        objective: The objective.
    """
    points = tuple(points)
    # A point whose interval of throughput includes 0 would differ in the report from the smoothed curve.
    positive = tuple(point for point in points if point.point.throughput.low > 0)
    chosen = best_of(smoothed_points(positive or points), slo, bias, objective)
    return next((point for point in points if chosen and point.point.load == chosen.point.load), None)


def _is_likely(trial_point: TrialPoint, slo: SLO, bias: SearchBias) -> bool:
    """Whether a point is verified, or would hold the SLO with the latency bias of the search."""
    return trial_point.verified or trial_point.point.holds(slo, slower=bias.latency)


def is_past(trial_point: TrialPoint, broken: Iterable[TrialPoint]) -> bool:
    """Whether one of the points that break the SLO is of the same trial, under the same or a lower load."""
    return any(
        past.trial.number == trial_point.trial.number
        and isinstance(past.point.load, type(trial_point.point.load))
        and past.point.load.level <= trial_point.point.load.level
        for past in broken
    )


def _weighted(trial_point: TrialPoint, slo: SLO, objective: Objective) -> float:
    sure, confirmed = 1.0 if is_certain(trial_point, slo) else _UNTESTED, 1.0 if trial_point.confirmed else _UNCONFIRMED
    return sure * confirmed * trial_point.merit(objective).value


def best_point(points: Iterable[TrialPoint], slo: SLO, objective: Objective = THROUGHPUT) -> TrialPoint | None:
    """The best point of those that hold the SLO; None when none does.

    Points near a limit (see `NEAR`) may keep it by chance. So a point with margin is preferred if it has at least 90 %
    of the most merit (see `OperatingPoint.merit`). The best of these has the lowest latency at 97 % or more of their
    most merit. (No merit is given up for a latency below the limit.) If all rivals are near a limit, the best is the
    rival of lowest latency. Only points of the Pareto front are considered.
    """
    percentile = objective.percentile_for(slo)
    holding = pareto_front((p for p in points if holds(p, slo)), percentile, objective)
    rivals = _rivals(holding, _RIVAL, objective)
    with_room = [p for p in rivals if p.point.holds(slo, slower=NEAR)]
    return min(_rivals(with_room, _EQUAL, objective) or rivals, key=lambda p: p.latency_ms(percentile), default=None)


def _rivals(points: Sequence[TrialPoint], share: float, objective: Objective) -> list[TrialPoint]:
    """Points with at least a share of the most merit whose intervals overlap that of the most.

    The share matters if intervals are so wide that all overlap.
    """
    if not points:
        return []
    merits = [p.merit(objective) for p in points]
    most = max(merits, key=lambda merit: merit.value)
    least = share * most.value
    return [p for p, merit in zip(points, merits, strict=True) if merit.high >= most.low and merit.value >= least]


def is_certain(point: TrialPoint, slo: SLO) -> bool:
    """Whether a test shows at 99 % confidence that a point keeps every limit; see `tuner.stats.slo_verdict`."""
    return point.point.verdict(slo) is Verdict.HOLDS


def holds(point: TrialPoint, slo: SLO) -> bool:
    """Whether a point keeps every limit as measured, and no test shows at 99 % confidence that it breaks one.

    The reported numbers of a verified point leave out the rounds that chose it. Here all rounds count, so that a point
    does not pass by a few lucky rounds.
    """
    if not point.point.holds(slo) or point.point.verdict(slo) is Verdict.BREAKS:
        return False
    tests = [test for test in point.point.limits if test.limit in slo.limits]
    return not point.verified or all(test.over <= test.allowed * test.requests for test in tests)
