"""Tests whether all future launches of a config hold a limit, from a few launches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from scipy import special

from tuner.core.slo import Percentile, share_of
from tuner.measure.points import OperatingPoint
from tuner.stats.blocks import student

# Typical standard deviation of the logarithm of latency between launches on one machine within an hour, and its weight
# in launches.
_TYPICAL_DEVIATION, _TYPICAL_LAUNCHES = 0.05, 3


def launches_hold(rounds: Sequence[OperatingPoint], name: Percentile, limit_ms: float, chance: float) -> bool:
    """Whether the requests of all future launches together keep a limit, judged by a few launches.

    Most slow requests come from a few slow launches, and a small sample may contain none of these. So latency is
    modelled as log-normal between and within launches. The result allows for the interval of the mean. It also allows
    for the distance of the percentile of all requests from that of a typical launch. If requests within a launch are
    alike, this is a tolerance limit (noncentral t; Hahn and Meeker 1991, "Statistical Intervals").

    Args:
        rounds: One point for each launch, all under the same load.
        name: The percentile that is limited.
        limit_ms: The limit, in ms.
        chance: Error probability. With fewer than two launches, the result is false.
    """
    count = len(rounds)
    if count < 2:
        return False
    logs = [math.log(point.latency_ms[name].value) for point in rounds]
    freedom = count - 1 + _TYPICAL_LAUNCHES
    spread = math.sqrt(((count - 1) * variance(logs) + _TYPICAL_LAUNCHES * _TYPICAL_DEVIATION**2) / freedom)
    z = float(special.ndtri(share_of(name)))
    of_mean = student(freedom + 1, chance) / math.sqrt(count)
    of_launch = float(special.nctdtrit(freedom, z * math.sqrt(count), 1 - chance)) / math.sqrt(count)
    bodies = (math.log(point.latency_ms["p99"].value / point.latency_ms["p50"].value) for point in rounds)
    within = z * fmean(bodies) / float(special.ndtri(share_of("p99")))
    beyond = math.hypot(within, (of_launch - of_mean) * spread) - within
    return fmean(logs) + of_mean * spread + beyond <= math.log(limit_ms)
