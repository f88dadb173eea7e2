"""How fast a config is in later launches, relative to its launch in the search.

Launches of one config differ, and the machine may have become faster or slower since the search. So the speed of a
config in a later launch is the sum of three terms, each normally distributed: what all configs have in common, the
config's own, and the launch's (a random-effects model). All speeds are logarithms of factors on throughput.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from scipy import special

from tuner.recommend.gain import LAUNCH_DEVIATION

PRIOR_FREEDOM = 2
"""Weight of the prior of the deviation between launches, in degrees of freedom."""
# Confidence of the upper bound of the deviation.
_CONFIDENCE = 0.8
MOST_DEVIATION = 0.5
"""The largest deviation of one launch that counts, so that a disturbance of the machine counts little."""
# Prior standard deviations: of the common term, and of configs where there are too few to compare.
_COMMON, _CONFIGS = 0.15, 0.3


@dataclass(frozen=True)
class Speed:
    """The speed of one config: its mean and standard deviation."""

    mean: float = 0.0
    deviation: float = 0.0


@dataclass(frozen=True)
class Spread:
    """How much launches of one config differ.

    Attributes:
        deviation: Standard deviation of the speed between launches.
        freedom: Degrees of freedom behind it.
    """

    deviation: float = LAUNCH_DEVIATION
    freedom: int = PRIOR_FREEDOM

    @classmethod
    def of(cls, launches: Sequence[Sequence[float]]) -> Spread:
        """The spread of some configs, with a prior of 8 %; the launch of the search counts as one more.

        Args:
            launches: The speed in each later launch, for each config.
        """
        relaunched = [logs for logs in launches if logs]
        common = median([*(median(logs) for logs in relaunched), 0.0])
        squares = sum(_squares([common, *logs]) for logs in relaunched)
        # What the configs have in common is estimated, too.
        freedom = PRIOR_FREEDOM + max(0, sum(map(len, relaunched)) - 1)
        return cls(math.sqrt((PRIOR_FREEDOM * LAUNCH_DEVIATION**2 + squares) / freedom), freedom)

    @property
    def doubt(self) -> float:
        """The factor on the deviation up to which it may be larger, with 80 % confidence (chi-squared)."""
        return math.sqrt(self.freedom / float(special.chdtri(self.freedom, _CONFIDENCE)))


def after_search(throughputs: Sequence[float], spread: Spread) -> tuple[Speed, ...]:
    """The speeds to expect after the search alone: its best launches were lucky.

    Each is shrunk toward the mean of all configs, by how much launches differ (empirical Bayes; Efron and Morris 1973).

    Args:
        throughputs: The logarithm of each config's best throughput in the search.
        spread: The spread between launches.
    """
    square = spread.deviation**2
    between = max(square / 4, variance(throughputs) - square) if len(throughputs) > 2 else _CONFIGS**2
    luck = square / (square + between)
    return tuple(Speed(luck * (fmean(throughputs) - log), math.sqrt(luck * between)) for log in throughputs)


def after_launches(expected: Sequence[Speed], launches: Sequence[Sequence[float]], spread: Spread) -> tuple[Speed, ...]:
    """The speed of each config now.

    A config whose launches contradict what was expected of it is judged by these launches alone.

    Args:
        expected: The speed that the search expects of each config.
        launches: The speed in each later launch, for each config; empty for one without.
        spread: The spread between launches.
    """
    measured = {n: fmean(_clipped(logs)) for n, logs in enumerate(launches) if logs}
    noise = {n: spread.deviation**2 / len(launches[n]) for n in measured}
    change = {n: value - expected[n].mean for n, value in measured.items()}
    typical = median([*change.values(), 0.0])
    own = [speed.deviation**2 for speed in expected]
    for n in measured:
        own[n] = max(own[n], (change[n] - typical) ** 2 - noise[n])
    weights = {n: 1 / (own[n] + noise[n]) for n in measured}
    precision = _COMMON**-2 + sum(weights.values())
    common = sum(weight * change[n] for n, weight in weights.items()) / precision
    speeds = []
    for n, speed in enumerate(expected):
        trust = own[n] / (own[n] + noise[n]) if n in measured else 0.0
        mean = speed.mean + common + trust * (change.get(n, 0.0) - common)
        speeds.append(Speed(mean, math.sqrt((1 - trust) * own[n])))
    return tuple(speeds)


def _clipped(logs: Sequence[float]) -> list[float]:
    middle = median(logs)
    return [min(max(log, middle - MOST_DEVIATION), middle + MOST_DEVIATION) for log in logs]


def _squares(logs: Sequence[float]) -> float:
    clipped = _clipped(logs)
    return sum((log - fmean(clipped)) ** 2 for log in clipped)
