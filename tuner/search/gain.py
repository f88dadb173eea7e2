"""By how much one operating point beats another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from tuner.measure.blocks import student
from tuner.measure.record import Interval
from tuner.search.verification import Verification

Pair = tuple[Interval, Interval]
"""Two throughputs of the same round."""


def pairs_of(above: Verification, below: Verification) -> tuple[Pair, ...]:
    """The throughputs of both, in the rounds that confirm the first one and had the second one, too."""
    confirming = zip(above.numbers[above.choosing :], above.confirming, strict=False)
    others = dict(zip(below.numbers, below.rounds, strict=False))
    return tuple((point.throughput, others[n].throughput) for n, point in confirming if n in others)


def paired_ratio(pairs: Sequence[Pair]) -> Interval:
    """The geometric mean of the ratios of pairs, with the t-interval of their logarithms.

    What a machine does to both of a pair cancels out. Two or three pairs may agree by chance, so the interval is no
    narrower than what each of them knows of itself allows.

    Args:
        pairs: Two and more.
    """
    logs = [math.log(above.value / below.value) for above, below in pairs]
    within = fmean(_spread(*pair) for pair in pairs) / math.sqrt(len(pairs))
    between = student(len(pairs)) * stdev(logs) / math.sqrt(len(pairs))
    return _about(fmean(logs), max(within, between))


def ratio(above: Interval, below: Interval) -> Interval:
    """The ratio of two independent measurements, with its 95 % interval by the delta method on the logarithm."""
    return _about(math.log(above.value / below.value), _spread(above, below))


def _spread(above: Interval, below: Interval) -> float:
    return math.hypot(above.relative_half_width, below.relative_half_width)


def _about(log: float, half: float) -> Interval:
    return Interval(value=math.exp(log), low=math.exp(log - half), high=math.exp(log + half))
