"""How far launches of the same config lie apart, and how well so few tell that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from scipy import special

from tuner.core.slo import Percentile, share_of
from tuner.measure.points import OperatingPoint
from tuner.stats.blocks import TAIL, student

# On a machine that is far from alone (the standard deviation of a logarithm), and so many launches that is worth: few
# launches by themselves allow for hundreds of times the throughput.
_APART, _WORTH = 0.3, 2
# What launches on one machine within an hour typically differ by (the same, of a latency), and what that is worth.
_TYPICAL, _TYPICAL_WORTH = 0.05, 3


def reach(square: float, freedom: int, tail: float = TAIL) -> float:
    """How far a launch may be from the mean: Student's t, by what was seen, or with what is known before, if less.

    The narrower of both still holds the truth in 94 to 95 % of cases where launches are no farther apart than is known
    before, and in 91 % where they are nearly twice as far.

    Args:
        square: The variance of logarithms that was seen.
        freedom: Degrees of freedom that it has; 1 and more.
        tail: How often it may err on either side.
    """
    with_before = (freedom * square + _WORTH * _APART**2) / (freedom + _WORTH)
    return min(
        student(freedom + 1, tail) * math.sqrt(square),
        student(freedom + _WORTH + 1, tail) * math.sqrt(with_before),
    )


def launches_hold(rounds: Sequence[OperatingPoint], name: Percentile, limit_ms: float, chance: float) -> bool:
    """Whether the requests of all launches that there may be keep a limit, as these launches tell.

    The few slow launches have most of the slow requests, and a few launches may have none of those. So latency is taken
    as log-normal between launches, and within them: what is still allowed for is the interval of the mean, and by how
    much the percentile of all requests lies above that of a typical launch, which is a tolerance limit (noncentral t;
    Hahn and Meeker 1991) where requests of a launch are alike.

    Args:
        rounds: A point a launch, under the same load.
        name: The percentile that is limited.
        limit_ms: The limit.
        chance: How often it may be wrong.
    """
    count = len(rounds)
    if count < 2:
        return False
    logs = [math.log(point.latency_ms[name].value) for point in rounds]
    freedom = count - 1 + _TYPICAL_WORTH
    spread = math.sqrt(((count - 1) * variance(logs) + _TYPICAL_WORTH * _TYPICAL**2) / freedom)
    z = float(special.ndtri(share_of(name)))
    of_mean = student(freedom + 1, chance) / math.sqrt(count)
    of_launch = float(special.nctdtrit(freedom, z * math.sqrt(count), 1 - chance)) / math.sqrt(count)
    bodies = (math.log(point.latency_ms["p99"].value / point.latency_ms["p50"].value) for point in rounds)
    within = z * fmean(bodies) / float(special.ndtri(share_of("p99")))
    beyond = math.hypot(within, (of_launch - of_mean) * spread) - within
    return fmean(logs) + of_mean * spread + beyond <= math.log(limit_ms)
