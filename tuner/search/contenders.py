"""What might be best: a point of each trial, as the search saw it, and what is left of it at a lower load."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from tuner.load.loads import Concurrency
from tuner.measure.points import OperatingPoint
from tuner.search.front import TrialPoint, usable_points
from tuner.search.recommend import best_point
from tuner.slo import SLO
from tuner.trial import TrialResult


@dataclass(frozen=True)
class Contender:
    """A config under a load that may be the best one.

    Attributes:
        throughput: What is expected of it, inferences/s.
    """

    trial: TrialResult
    load: Concurrency
    throughput: float

    @classmethod
    def of(cls, point: TrialPoint) -> Contender:
        """What was measured in the search; its loads are closed loops."""
        load = Concurrency(int(point.point.load.level))
        return cls(point.trial, load, point.point.throughput.value)

    def lower(self, share: float, throughput: float) -> Contender | None:
        """The same config under a share of the load; None when there is no lower one.

        Args:
            share: Below 1.
            throughput: What it turned out to give under this load, from which follows what to expect there.
        """
        requests = max(1, min(math.floor(self.load.requests * share), self.load.requests - 1))
        if requests >= self.load.requests:
            return None
        curve = self.trial.curve
        expected = throughput * _throughput_at(curve, requests) / _throughput_at(curve, self.load.requests)
        return Contender(self.trial, Concurrency(requests), expected)


def contenders(trials: Iterable[TrialResult], slo: SLO, max_gpu_memory: int | None = None) -> tuple[Contender, ...]:
    """The best point of each trial that could be deployed and has one, in order of throughput, the highest first."""
    points = (best_point(usable_points([trial], (), max_gpu_memory), slo) for trial in trials)
    return tuple(sorted((Contender.of(p) for p in points if p), key=lambda c: c.throughput, reverse=True))


def _throughput_at(curve: tuple[OperatingPoint, ...], requests: int) -> float:
    """Between two points of a curve, on a straight line; beyond its end, as there."""
    known = [(point.load.level, point.throughput.value) for point in curve]
    for (low, slower), (high, quicker) in pairwise(known):
        if low <= requests <= high:
            return slower + (quicker - slower) * (requests - low) / (high - low)
    # Below its lowest load, as good as all of the time is spent on waiting for answers.
    return known[0][1] * requests / known[0][0] if requests < known[0][0] else known[-1][1]
