"""By how much one operating point beats another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from tuner.core.record import Interval
from tuner.measure.points import OperatingPoint
from tuner.recommend.front import TrialPoint, points_of, smoothed_points
from tuner.recommend.launches import reach
from tuner.recommend.verification import Verification
from tuner.stats.blocks import TAIL, Z95

Pair = tuple[Interval, Interval]
"""Two throughputs of the same round."""
APART = 0.08
"""What launches of one config differ by while nothing was launched again: the standard deviation of the logarithm."""
Pick = Callable[[OperatingPoint], Interval]
"""A number of a point."""


@dataclass(frozen=True)
class Comparison:
    """By how much one point's throughput beats another's.

    Attributes:
        ratio: The one over the other.
        rates: The throughputs of which `ratio` is the quotient, in inferences/s.
        pairs: So many rounds, in which both ran side by side, it is from; 0: from each one's own measurements.
    """

    ratio: Interval
    rates: tuple[float, float]
    pairs: int = 0


def compared(above: TrialPoint, below: TrialPoint, verified: Sequence[Verification]) -> Comparison:
    """Compare two points: the one way to do so, whoever asks.

    By the rounds that had both, where there are two and more; else by what is known of each, and what was launched once
    is known no better than the launches of what was verified agree.

    Args:
        above: The one.
        below: The other.
        verified: What was measured again.
    """
    if above == below:
        same = above.point.throughput.value
        return Comparison(Interval(value=1.0, low=1.0, high=1.0), (same, same))
    rounds = {(each.trial, each.load): each for each in verified}
    one, other = (rounds.get((each.trial.number, each.point.load)) for each in (above, below))
    pairs = pairs_of(one, other) if one and other else ()
    if len(pairs) > 1:
        one_rate, other_rate = (
            math.exp(fmean(math.log(each.value) for each in side)) for side in zip(*pairs, strict=True)
        )
        return Comparison(paired_ratio(pairs), (one_rate, other_rate), len(pairs))
    launch = launch_spread(verified, _throughput)
    told, other_told = (_known(each, _throughput, launch) for each in (above, below))
    return Comparison(ratio(told, other_told), (told.value, other_told.value))


def _throughput(point: OperatingPoint) -> Interval:
    return point.throughput


def unpaired_ratio(above: TrialPoint, below: TrialPoint, verified: Sequence[Verification], pick: Pick) -> Interval:
    """The ratio of a number of two points, each as well as it is known; see `compared`."""
    launch = launch_spread(verified, pick)
    return ratio(_known(above, pick, launch), _known(below, pick, launch))


def pairs_of(above: Verification, below: Verification) -> tuple[Pair, ...]:
    """The throughputs of both, in the rounds that confirm the first one and had the second one, too."""
    confirming = zip(above.numbers[above.choosing :], above.confirming, strict=False)
    others = dict(zip(below.numbers, below.rounds, strict=False))
    return tuple((point.throughput, others[n].throughput) for n, point in confirming if n in others)


def paired_ratio(pairs: Sequence[Pair], tail: float = TAIL) -> Interval:
    """The geometric mean of the ratios of pairs, with the t-interval of their logarithms.

    What a machine does to both of a pair cancels out. Two or three pairs may agree by chance, so the interval is no
    narrower than what each of them knows of itself allows.

    Args:
        pairs: Two and more.
        tail: How often it may err on either side.
    """
    logs = [math.log(above.value / below.value) for above, below in pairs]
    within = fmean(_spread(*pair) for pair in pairs) / math.sqrt(len(pairs))
    between = reach(variance(logs), len(pairs) - 1, tail) / math.sqrt(len(pairs))
    return Interval.within_logs(math.exp(fmean(logs)), max(within, between))


def ratio(above: Interval, below: Interval) -> Interval:
    """The ratio of two independent measurements, with its 95 % interval by the delta method on the logarithm."""
    return Interval.within_logs(above.value / below.value, _spread(above, below))


def launch_spread(verified: Sequence[Verification], pick: Pick) -> float:
    """How well one launch knows a number: the half width of a 95 % interval, as a share.

    The variance of its logarithm is pooled over the rounds of all that was verified, with as many degrees of freedom
    as there are rounds less verifications.
    """
    squares, freedom = 0.0, 0
    for each in verified:
        logs = [math.log(pick(point).value) for point in each.rounds if pick(point).value > 0]
        if logs:
            squares += sum((value - fmean(logs)) ** 2 for value in logs)
            freedom += len(logs) - 1
    if not freedom:
        return Z95 * APART
    return reach(squares / freedom, freedom)


def _known(each: TrialPoint, pick: Pick, launch: float) -> Interval:
    """What is known of a point; of one launch, what its whole curve says, and no better than launches agree."""
    if each.verified:
        return pick(each.point)
    curve = smoothed_points(points_of(each.trial))
    told = next((pick(p.point) for p in curve if p.point.load == each.point.load), pick(each.point))
    if told.relative_half_width >= launch:
        return told
    return Interval(value=told.value, low=told.value * (1 - launch), high=told.value * (1 + launch))


def _spread(above: Interval, below: Interval) -> float:
    return math.hypot(above.log_half_width, below.log_half_width)
