"""The gain: the ratio of the merits of two operating points, with its interval.

The merit of a point is the value of the objective; for a latency, its inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Interval
from tuner.measure.points import OperatingPoint
from tuner.recommend.front import TrialPoint, points_of, smoothed_points
from tuner.recommend.verification import Verification
from tuner.stats.blocks import TAIL, Z95
from tuner.stats.launches import half_width

Pair = tuple[Interval, Interval]
"""Two merits of the same round."""
LAUNCH_DEVIATION = 0.08
"""Prior standard deviation of the logarithm of throughput between launches, where nothing was relaunched."""
Pick = Callable[[OperatingPoint], Interval]
"""Takes a quantity of a point."""


@dataclass(frozen=True)
class GainEstimate:
    """The merit of one point over that of another.

    Attributes:
        ratio: The gain.
        merits: The two merits whose quotient is `ratio`.
        pairs: Number of rounds with both points side by side behind it; 0: it is from independent measurements.
    """

    ratio: Interval
    merits: tuple[float, float]
    pairs: int = 0


def compared(
    above: TrialPoint, below: TrialPoint, verified: Sequence[Verification], objective: Objective = THROUGHPUT
) -> GainEstimate:
    """Compare two points. All gains in reports and decisions come from here.

    With two or more rounds that measured both, it is the paired ratio. Otherwise it is the ratio of independent
    measurements; the interval of a point that was launched once covers at least the spread between launches.

    Args:
        above: The point in the numerator.
        below: The point in the denominator.
        verified: All relaunched points.
        objective: The objective.
    """
    if above == below:
        same = above.merit(objective).value
        return GainEstimate(Interval(value=1.0, low=1.0, high=1.0), (same, same))
    rounds = {(trial_point.trial, trial_point.load): trial_point for trial_point in verified}
    one, other = (rounds.get((trial_point.trial.number, trial_point.point.load)) for trial_point in (above, below))
    pairs = pairs_of(one, other, objective) if one and other else ()
    if len(pairs) > 1:
        one_merit, other_merit = (
            math.exp(fmean(math.log(trial_point.value) for trial_point in side)) for side in zip(*pairs, strict=True)
        )
        return GainEstimate(paired_ratio(pairs), (one_merit, other_merit), len(pairs))

    def merit(point: OperatingPoint) -> Interval:
        return point.merit(objective)

    launch = launch_spread(verified, merit)
    one_estimate, other_estimate = (_estimate(point, merit, launch) for point in (above, below))
    return GainEstimate(ratio(one_estimate, other_estimate), (one_estimate.value, other_estimate.value))


def unpaired_ratio(above: TrialPoint, below: TrialPoint, verified: Sequence[Verification], pick: Pick) -> Interval:
    """The ratio of a quantity of two points from independent measurements; see `compared`."""
    launch = launch_spread(verified, pick)
    return ratio(_estimate(above, pick, launch), _estimate(below, pick, launch))


def pairs_of(above: Verification, below: Verification, objective: Objective = THROUGHPUT) -> tuple[Pair, ...]:
    """The merits of both in those rounds that confirm `above` and measured `below` on the same host, too."""
    rounds = zip(above.numbers, above.hosts_of_rounds, strict=False)
    confirming = zip(tuple(rounds)[above.choosing :], above.confirming, strict=False)
    others = dict(zip(zip(below.numbers, below.hosts_of_rounds, strict=False), below.rounds, strict=False))
    return tuple((point.merit(objective), others[at].merit(objective)) for at, point in confirming if at in others)


def paired_ratio(pairs: Sequence[Pair], tail: float = TAIL) -> Interval:
    """The geometric mean of the ratios of pairs, with the t-interval of their logarithms.

    A disturbance of the machine that hits both of a pair cancels out. Two or three pairs may agree by chance. So the
    interval covers at least the measurement errors of the pairs.

    Args:
        pairs: At least two.
        tail: Error probability on either side.
    """
    logs = [math.log(above.value / below.value) for above, below in pairs]
    within = fmean(_spread(*pair) for pair in pairs) / math.sqrt(len(pairs))
    between = half_width(variance(logs), len(pairs) - 1, tail) / math.sqrt(len(pairs))
    return Interval.within_logs(math.exp(fmean(logs)), max(within, between))


def ratio(above: Interval, below: Interval) -> Interval:
    """The ratio of two independent measurements, with its 95 % interval by the delta method on the logarithm."""
    return Interval.within_logs(above.value / below.value, _spread(above, below))


def launch_spread(verified: Sequence[Verification], pick: Pick) -> float:
    """Half width of the 95 % interval of a quantity measured in one launch, as a share.

    The variance of its logarithm is pooled over the rounds of all relaunched points; each point costs one degree of
    freedom.
    """
    squares, freedom = 0.0, 0
    for verification in verified:
        logs = [math.log(pick(point).value) for point in verification.rounds if pick(point).value > 0]
        if logs:
            squares += sum((value - fmean(logs)) ** 2 for value in logs)
            freedom += len(logs) - 1
    if not freedom:
        return Z95 * LAUNCH_DEVIATION
    return half_width(squares / freedom, freedom)


def _estimate(trial_point: TrialPoint, pick: Pick, launch: float) -> Interval:
    """A quantity of a point. If it was launched once: by its smoothed curve, with at least the half width `launch`."""
    point = trial_point.point
    if trial_point.verified:
        return pick(point)
    curve = smoothed_points(points_of(trial_point.trial))
    smooth = next((pick(p.point) for p in curve if p.point.load == point.load), pick(point))
    if smooth.relative_half_width >= launch:
        return smooth
    return Interval(value=smooth.value, low=smooth.value * (1 - launch), high=smooth.value * (1 + launch))


def _spread(above: Interval, below: Interval) -> float:
    return math.hypot(above.log_half_width, below.log_half_width)
