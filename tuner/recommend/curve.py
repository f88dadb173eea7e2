"""What the curve of a trial says of a load, also of one that was not measured: all of its points tell together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.core.loads import Concurrency
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES, SLO, Percentile
from tuner.measure.points import OperatingPoint
from tuner.stats.blocks import Z95

# A curve is a Gaussian process in log-log scale around a straight line of any slope: the deviation from it, and the
# octaves of load over which it is one. A level wanders by so much more than it knows of itself.
_BEND, _OCTAVES, _WANDER = 0.5, 1.5, 0.02
# Through fewer points, any curve goes exactly.
_FEWEST = 3
# At so many loads it is looked for where the SLO breaks.
_STEPS = 33


def smoothed(curve: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """The points of a closed loop, each with what the curve through all of them says of its load.

    The best of many noisy points is too good, and where it lies is luck; a curve through all has less of either.

    Args:
        curve: Of one launch.
    """
    points = tuple(curve)
    levels = {point.load.level for point in points if isinstance(point.load, Concurrency)}
    if len(levels) < max(_FEWEST, len(points)):
        return points
    octaves = np.log2([point.load.level for point in points])
    throughputs = _smooth(octaves, [point.throughput for point in points])
    latencies = {name: _smooth(octaves, [point.latency_ms[name] for point in points]) for name in PERCENTILES}
    return tuple(
        point.model_copy(
            update={"throughput": throughputs[n], "latency_ms": {name: told[n] for name, told in latencies.items()}}
        )
        for n, point in enumerate(points)
    )


def _smooth(octaves: NDArray[np.float64], measured: Sequence[Interval]) -> list[Interval]:
    """Each value with its 95 % interval, by Gaussian process regression on logarithms."""
    if min(each.value for each in measured) <= 0:
        return list(measured)
    logs = np.log([each.value for each in measured])
    own = np.array([min(each.log_half_width, 1.0) / Z95 for each in measured])
    noise = np.diag(own**2 + _WANDER**2)
    line = np.stack([np.ones_like(octaves), octaves - octaves.mean()])
    apart = (octaves[:, None] - octaves[None]) / _OCTAVES
    signal = _BEND**2 * np.exp(-0.5 * apart**2) + 100.0 * line.T @ line
    gain = np.linalg.solve(signal + noise, signal).T
    values = logs.mean() + gain @ (logs - logs.mean())
    deviations = np.sqrt(np.maximum(0.0, np.diag(signal - gain @ signal)))
    return [
        Interval.within_logs(float(np.exp(value)), float(Z95 * deviation))
        for value, deviation in zip(values, deviations, strict=True)
    ]


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


def headroom(curve: Iterable[OperatingPoint], point: OperatingPoint, slo: SLO) -> float:
    """How many times its throughput a config may give under more load, until the SLO breaks; 1 and more.

    By the shape of its curve, through what was measured at the point, maybe on other launches.

    Args:
        curve: Of one launch.
        point: Of the same config.
        slo: The limits, maybe none.
    """
    shape = sorted(smoothed(each for each in curve if not each.errors), key=lambda each: each.load.level)
    here = point.load.level
    if not isinstance(point.load, Concurrency) or not shape or here >= shape[-1].load.level:
        return 1.0
    most = 1.0
    for level in np.geomspace(here, shape[-1].load.level, _STEPS):
        slower = {name: latency_ms_at(shape, name, level) / latency_ms_at(shape, name, here) for name, _ in slo.limits}
        if not slo.holds({name: point.latency_ms[name].value * factor for name, factor in slower.items()}):
            break
        most = max(most, throughput_at(shape, level) / throughput_at(shape, here))
    return most
