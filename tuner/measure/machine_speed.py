"""How fast this machine itself is while something is measured on it, and how much that wanders.

Where others share a processor's caches, threads or clock, or a hypervisor takes time that it does not tell of, one
second is not worth what the next one is. No count of the kernel says so; the CPU time that a fixed piece of work takes
does.
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

# Some 0.2 ms of work, ten times a second.
_TURNS = 20_000
# Of samples, the quickest and the slowest such share says more of what came between than of the machine.
_TRIMMED = 0.2
# The speed of a moment is that of a second, or of an eighth of a shorter time; fewer moments have no spread.
_MOMENT_S, _SHORTEST_S, _MOMENTS = 1.0, 0.25, 4
_FEWEST = 2
# What wanders on a scale of seconds wanders on longer ones, too, as 1/f noise: with the same variance in each octave.
# From 1 s to the 10 s of a window are 3.3 octaves, from there to an hour 8.5: sqrt(8.5 / 3.3), or 1.6, times the
# deviation. And a Triton that is busy all the time follows the loop's speed to the power of 0.65 (26 measurements of
# the example model on two cores of a shared machine, their throughput fitted to their speed; correlation 0.91).
FOLLOWS = 0.65
_LATER = 1.6 * FOLLOWS


class MachineSpeed(Record):
    """The speed of one core of this machine over a window.

    Attributes:
        turns_per_us: Turns of an empty loop in a microsecond of CPU time; the trimmed geometric mean.
        wander: The relative standard deviation of that of a second.
    """

    turns_per_us: float
    wander: float

    def allowed_for(self, interval: Interval, cores: float | None) -> Interval:
        """An interval that also holds what comes when the machine is as fast as it may be at another time.

        Args:
            interval: Of a throughput or a latency in this window.
            cores: CPU seconds a second that the server takes: what runs on a processor for a part of the time is
                slowed down by no more than that part; None: not known, so all of the time.
        """
        further = Z95 * _LATER * self.wander * min(1.0, 1.0 if cores is None else cores)
        if not further:
            return interval
        if interval.low <= 0:
            return interval.model_copy(update={"high": interval.high * (1 + further)})
        # A speed is a factor: half as fast is as far as twice as fast, and nothing is infinitely fast.
        down, up = math.log(interval.value / interval.low), math.log(interval.high / interval.value)
        return Interval.within_logs(interval.value, math.hypot(down, further), math.hypot(up, further))


def us_per_turn() -> float:
    """CPU time of a turn of an empty loop, right now, in microseconds. Takes some 0.2 ms of it."""
    began_ns = time.thread_time_ns()
    for _ in itertools.repeat(None, _TURNS):
        pass
    return (time.thread_time_ns() - began_ns) / 1e3 / _TURNS


def machine_speed(samples: Sequence[Sample[float]]) -> MachineSpeed | None:
    """What samples of `us_per_turn` say; None where they are too few.

    The spread of the moments is free of that of the samples within a moment, by the analysis of variance, with trimmed
    means and their standard errors (J. W. Tukey and D. H. McLaughlin, Sankhya A 25, 1963): what shares a core with a
    busy server takes ten times as long now and then.
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
    """The trimmed mean, and the square of its standard error; of at least two values."""
    count = len(values)
    ordered, cut = np.sort(values), int(_TRIMMED * count)
    kept = ordered[cut : count - cut]
    winsorized = ordered.clip(kept[0], kept[-1])
    return float(kept.mean()), float(winsorized.var(ddof=1)) / ((1 - 2 * _TRIMMED) ** 2 * count)


def speeds_together(rounds: Iterable[MachineSpeed | None]) -> MachineSpeed | None:
    """Several measurements as one: the mean speed, and the deviation from it within and between them."""
    told = [each for each in rounds if each]
    if not told:
        return None
    mean = fmean(each.turns_per_us for each in told)
    square = fmean((each.wander * each.turns_per_us) ** 2 + (each.turns_per_us - mean) ** 2 for each in told)
    return MachineSpeed(turns_per_us=mean, wander=math.sqrt(square) / mean)
