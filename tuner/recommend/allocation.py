"""Which configs to relaunch next, so that the best one is found in few launches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.recommend.speed import Speed


def worth(values: Sequence[Speed], spread: float) -> list[float]:
    """The expected gain of the choice by one more launch of each config: the knowledge gradient.

    A launch moves the expectation of a config by a normal deviate. That is worth something if the config may overtake
    the best one, or if the best one may fall behind. (Frazier, Powell and Dayanik 2008, "A knowledge-gradient policy
    for sequential information collection".)

    Args:
        values: The logarithm of each config's value; its mean and standard deviation.
        spread: Standard deviation between launches.

    Returns:
        The gains, as shares.
    """
    order = sorted((value.mean for value in values), reverse=True)[:2]
    return [_gain(value, order[1] if value.mean == order[0] else order[0], spread) for value in values]


def _gain(value: Speed, best_other: float, spread: float) -> float:
    change = value.deviation**2 / math.hypot(value.deviation, spread)
    gap = abs(value.mean - best_other) / change
    density = math.exp(-0.5 * gap**2) / math.sqrt(2 * math.pi)
    return change * (density - 0.5 * gap * math.erfc(gap / math.sqrt(2)))
