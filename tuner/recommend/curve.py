"""Smoothing and interpolation of a trial's curve of throughput and latency over load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.core.loads import Concurrency
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES, SLO, Limit, Percentile
from tuner.measure.points import OperatingPoint
from tuner.stats.blocks import Z95

# A curve is a Gaussian process in log-log scale around a straight line. Its parameters: standard deviation from the
# line, correlation length in octaves of load, and noise of a level beyond its own interval (as a standard deviation).
_DEVIATION, _OCTAVES, _LEVEL_NOISE = 0.5, 1.5, 0.02
# With fewer loads, points are not smoothed.
_LEAST_LOADS = 3
# Number of loads at which `headroom` looks for the one that breaks the SLO.
_STEPS = 33


def smoothed(curve: Iterable[OperatingPoint]) -> tuple[OperatingPoint, ...]:
    """The points of a closed loop, with throughput and latencies of a smooth curve through all points.

    The best of many noisy points is too good and at an arbitrary load; smoothing reduces both errors.

    Args:
        curve: The points of one launch. Open loops and curves of fewer than three loads are returned unchanged.
    """
    points = tuple(curve)
    levels = {point.load.level for point in points if isinstance(point.load, Concurrency)}
    if len(levels) < max(_LEAST_LOADS, len(points)):
        return points
    octaves = np.log2([point.load.level for point in points])
    throughputs = _smooth(octaves, [point.throughput for point in points])
    latencies = {name: _smooth(octaves, [point.latency_ms[name] for point in points]) for name in PERCENTILES}
    return tuple(
        point.model_copy(
            update={"throughput": throughputs[n], "latency_ms": {name: values[n] for name, values in latencies.items()}}
        )
        for n, point in enumerate(points)
    )


def _smooth(octaves: NDArray[np.float64], measured: Sequence[Interval]) -> list[Interval]:
    """Each value with its 95 % interval, by Gaussian process regression on logarithms."""
    if min(interval.value for interval in measured) <= 0:
        return list(measured)
    logs = np.log([interval.value for interval in measured])
    own = np.array([min(interval.log_half_width, 1.0) / Z95 for interval in measured])
    noise = np.diag(own**2 + _LEVEL_NOISE**2)
    line = np.stack([np.ones_like(octaves), octaves - octaves.mean()])
    apart = (octaves[:, None] - octaves[None]) / _OCTAVES
    signal = _DEVIATION**2 * np.exp(-0.5 * apart**2) + 100.0 * line.T @ line
    gain = np.linalg.solve(signal + noise, signal).T
    values = logs.mean() + gain @ (logs - logs.mean())
    deviations = np.sqrt(np.maximum(0.0, np.diag(signal - gain @ signal)))
    return [
        Interval.within_logs(float(np.exp(value)), float(Z95 * deviation))
        for value, deviation in zip(values, deviations, strict=True)
    ]


def throughput_at(curve: Sequence[OperatingPoint], level: float) -> float:
    """Throughput under a load, in inferences/s, by linear interpolation; constant beyond the highest load.

    Args:
        curve: In order of load; not empty.
        level: The load level.
    """
    lowest = curve[0]
    if level < lowest.load.level:
        # Below the lowest measured load, throughput is taken to be proportional to the load.
        return lowest.throughput.value * level / lowest.load.level
    return _between(curve, [point.throughput.value for point in curve], level)


def latency_ms_at(curve: Sequence[OperatingPoint], percentile: Percentile, level: float) -> float:
    """Latency under a load, in ms, by linear interpolation; constant beyond the ends.

    Args:
        curve: In order of load; not empty.
        percentile: The latency percentile.
        level: The load level.
    """
    return _between(curve, [point.latency_ms[percentile].value for point in curve], level)


def _limited_ms_at(curve: Sequence[OperatingPoint], limit: Limit, level: float) -> float:
    return _between(curve, [point.limitable_ms[limit.key].value for point in curve], level)


def _between(curve: Sequence[OperatingPoint], values: Sequence[float], level: float) -> float:
    return float(np.interp(level, [point.load.level for point in curve], values))


def headroom(
    curve: Iterable[OperatingPoint], point: OperatingPoint, slo: SLO, objective: Objective = THROUGHPUT
) -> float:
    """The factor (at least 1) by which a config's merit may rise with the load until the SLO breaks.

    The shape of the smoothed curve is scaled to the point, which may come from other launches.

    Args:
        curve: The points of one launch.
        point: A point of the same config.
        slo: The limits; may be empty.
        objective: The objective.
    """
    shape = sorted(smoothed(p for p in curve if not p.errors and p.value(objective)), key=lambda p: p.load.level)
    here = point.load.level
    if not isinstance(point.load, Concurrency) or not shape or here >= shape[-1].load.level:
        return 1.0
    most, merits = 1.0, [p.merit(objective).value for p in shape]
    for level in np.geomspace(here, shape[-1].load.level, _STEPS):
        slower = {
            limit.key: _limited_ms_at(shape, limit, level) / _limited_ms_at(shape, limit, here) for limit in slo.limits
        }
        if not slo.holds({key: point.limitable_ms[key].value * factor for key, factor in slower.items()}):
            break
        most = max(most, _between(shape, merits, level) / _between(shape, merits, here))
    return most
