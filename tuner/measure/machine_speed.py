"""The speed of this machine during a measurement, and its variation.

If others share caches, hardware threads or the clock of a processor, or a hypervisor takes time without reporting it,
the machine's speed varies. No kernel counter shows that; the CPU time of a fixed piece of work does.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tuner.core.record import Interval, Record
from tuner.measure.sampling import Sample
from tuner.stats.blocks import Z95

# Loop turns of one probe: some 0.2 ms of CPU time, ten times a second.
_TURNS = 20_000
# Share of the fastest and of the slowest samples that the trimmed mean leaves out.
_TRIMMED = 0.2
# A moment is 1 s, or an eighth of a shorter window, but at least 0.25 s. A deviation needs 4 moments of 2 samples.
_MOMENT_S, _SHORTEST_S, _MOMENTS = 1.0, 0.25, 4
_FEWEST = 2
# The speed varies on all time scales, as 1/f noise: with the same variance in each octave. From 1 s to a window of 10 s
# are 3.3 octaves, and from there to an hour 8.5. So the deviation grows by sqrt(8.5 / 3.3) = 1.6. The throughput of a
# fully busy Triton is proportional to the loop's speed to the power of 0.65. (Fit over 26 measurements of the example
# model on two cores of a shared machine; correlation 0.91.)
FOLLOWS = 0.65
_LATER = 1.6 * FOLLOWS


class MachineSpeed(Record):
    """The speed of one core of this machine over a window.

    Attributes:
        turns_per_us: Turns of an empty loop per microsecond of CPU time (trimmed geometric mean).
        wander: Relative standard deviation of the speed between moments of up to 1 s.
    """

    turns_per_us: float
    wander: float

    def allowed_for(self, interval: Interval, cores: float | None) -> Interval:
        """An interval, widened by the possible difference of the machine's speed at another time.

        Args:
            interval: A throughput or latency of this window.
            cores: CPU seconds per second of the server. Only this part of its time is slowed down, at most all of it.
                None: unknown, so all of its time.
        """
        further = Z95 * _LATER * self.wander * min(1.0, 1.0 if cores is None else cores)
        if not further:
            return interval
        if interval.low <= 0:
            return interval.model_copy(update={"high": interval.high * (1 + further)})
        # Speeds are ratios, so the interval is widened in logarithms.
        down, up = math.log(interval.value / interval.low), math.log(interval.high / interval.value)
        return Interval.within_logs(interval.value, math.hypot(down, further), math.hypot(up, further))


def us_per_turn() -> float:
    """CPU time of one turn of an empty loop now, in us. Takes some 0.2 ms."""
    began_ns = time.thread_time_ns()
    for _ in itertools.repeat(None, _TURNS):
        pass
    return (time.thread_time_ns() - began_ns) / 1e3 / _TURNS


def machine_speed(samples: Sequence[Sample[float]]) -> MachineSpeed | None:
    """The speed and its variation from samples of `us_per_turn`; None: too few samples.

    The variance between moments is corrected for the variance within moments (analysis of variance). Means are trimmed,
    with their standard errors (J. W. Tukey and D. H. McLaughlin, Sankhya A 25, 1963), because a probe that shares a
    core with a busy server sometimes takes ten times as long.
    """
    if len(samples) < _MOMENTS * _FEWEST:
        return None
    at_s = np.array([sample.at_ns for sample in samples]) / 1e9
    cost = np.log([sample.answer for sample in samples])
    length_s = float(at_s[-1] - at_s[0])
    moments = int(length_s / min(max(length_s / 8, _SHORTEST_S), _MOMENT_S))
    if moments < _MOMENTS:
        return None
    edges = np.searchsorted(at_s, np.linspace(at_s[0], at_s[-1], moments + 1)[1:-1])
    groups = [group for group in np.split(cost, edges) if len(group) >= _FEWEST]
    if len(groups) < _MOMENTS:
        return None
    means, squares = zip(*map(_trimmed, groups), strict=True)
    between, within = float(np.var(means, ddof=1)), fmean(squares)
    return MachineSpeed(turns_per_us=math.exp(-_trimmed(cost)[0]), wander=math.sqrt(max(0.0, between - within)))


def _trimmed(values: NDArray[np.float64]) -> tuple[float, float]:
    """The trimmed mean of at least two values, and the square of its standard error."""
    count = len(values)
    ordered, cut = np.sort(values), int(_TRIMMED * count)
    kept = ordered[cut : count - cut]
    winsorized = ordered.clip(kept[0], kept[-1])
    return float(kept.mean()), float(winsorized.var(ddof=1)) / ((1 - 2 * _TRIMMED) ** 2 * count)


def speeds_together(rounds: Iterable[MachineSpeed | None]) -> MachineSpeed | None:
    """Pool several measurements: the mean speed, and the deviation from it within and between them."""
    speeds = [speed for speed in rounds if speed]
    if not speeds:
        return None
    mean = fmean(speed.turns_per_us for speed in speeds)
    square = fmean((speed.wander * speed.turns_per_us) ** 2 + (speed.turns_per_us - mean) ** 2 for speed in speeds)
    return MachineSpeed(turns_per_us=mean, wander=math.sqrt(square) / mean)
