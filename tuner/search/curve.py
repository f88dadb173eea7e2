"""What the curve of a trial says of loads between those that were measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.measure.points import OperatingPoint
from tuner.slo import Percentile


def throughput_at(curve: Sequence[OperatingPoint], level: float) -> float:
    """Inferences/s under a load: on a straight line between two points; above the highest load, as there.

    Args:
        curve: In order of load; not empty.
        level: Of the load.
    """
    lowest = curve[0]
    if level < lowest.load.level:
        # As good as all of the time is spent on waiting for answers.
        return lowest.throughput.value * level / lowest.load.level
    return _between(curve, [point.throughput.value for point in curve], level)


def latency_ms_at(curve: Sequence[OperatingPoint], percentile: Percentile, level: float) -> float:
    """Latency under a load: on a straight line between two points; beyond the ends, as there.

    Args:
        curve: In order of load; not empty.
        percentile: Of the latency.
        level: Of the load.
    """
    return _between(curve, [point.latency_ms[percentile].value for point in curve], level)


def _between(curve: Sequence[OperatingPoint], values: Sequence[float], level: float) -> float:
    return float(np.interp(level, [point.load.level for point in curve], values))
