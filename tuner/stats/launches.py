"""The mean of a few launches of one config; launches differ by more than requests within a launch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from tuner.core.record import Interval
from tuner.stats.blocks import TAIL, student

# Prior standard deviation of a logarithm between launches on a heavily shared machine, and its weight in launches.
# Without a prior, the interval of two launches may extend to hundreds of times the throughput.
_PRIOR_DEVIATION, _PRIOR_LAUNCHES = 0.3, 2


def half_width(square: float, freedom: int, tail: float = TAIL) -> float:
    """Half width of the interval of one launch, as a logarithm, by Student's t.

    It is the narrower one of the intervals with and without the prior. It covers the truth in 94 to 95 % of cases if
    launches differ by no more than the prior. If they differ by nearly twice as much, it covers it in 91 %.

    Args:
        square: Sample variance of the logarithms.
        freedom: Its degrees of freedom, at least 1.
        tail: Error probability on either side.
    """
    with_prior = (freedom * square + _PRIOR_LAUNCHES * _PRIOR_DEVIATION**2) / (freedom + _PRIOR_LAUNCHES)
    return min(
        student(freedom + 1, tail) * math.sqrt(square),
        student(freedom + _PRIOR_LAUNCHES + 1, tail) * math.sqrt(with_prior),
    )


def mean_of_launches(intervals: Sequence[Interval]) -> Interval:
    """The mean over rounds, with its t-interval or the mean of the rounds' own intervals, whichever is wider.

    Rates and times differ by factors from launch to launch, so the interval is computed on logarithms.
    """
    count, values = len(intervals), [interval.value for interval in intervals]
    value = fmean(values)
    if min(values) <= 0:
        return Interval(value=value, low=0.0, high=max(interval.high for interval in intervals))
    half = fmean(interval.log_half_width for interval in intervals) / math.sqrt(count)
    if count > 1:
        half = max(half, half_width(variance(map(math.log, values)), count - 1) / math.sqrt(count))
    return Interval.within_logs(value, half)
