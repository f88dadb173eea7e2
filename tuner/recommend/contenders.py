"""What might be best: a point of each trial, as the search saw it, and what is left of it at a lower load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tuner.core.loads import Concurrency
from tuner.core.slo import PERCENTILES, SLO, Percentile
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import throughput_at
from tuner.recommend.front import TrialPoint, points_of, smoothed_points, usable_points
from tuner.recommend.recommend import best_point, holds


@dataclass(frozen=True)
class Contender:
    """A config under a load that may be the best one.

    Attributes:
        throughput: Inferences/s under this load, as far as is known.
        latency_ms: The same of its percentiles.
        searched: Whether only the search tells so, and no launch after it.
    """

    trial: TrialResult
    load: Concurrency
    throughput: float
    latency_ms: Mapping[Percentile, float]
    searched: bool = True

    @classmethod
    def of(cls, point: TrialPoint) -> Contender:
        """What was measured in the search; its loads are closed loops."""
        load = Concurrency(int(point.point.load.level))
        latency_ms = {name: point.point.latency_ms[name].value for name in PERCENTILES}
        return cls(point.trial, load, point.point.throughput.value, latency_ms)

    @classmethod
    def at_most(cls, trial: TrialResult, slo: SLO) -> Contender | None:
        """A trial under the load at which its curve gives most within the SLO; None where it holds that at none.

        Near a limit it may break it, which more launches tell; without that it is what others are compared with.
        """
        within = [p for p in smoothed_points(points_of(trial)) if holds(p, slo)]
        most = max(within, key=lambda p: p.point.throughput.value, default=None)
        return None if most is None else cls.of(replace(most, trial=trial))

    def lower(self, share: float) -> Contender | None:
        """The same config under a share of the load, which is below 1; None when there is no lower one."""
        requests = max(1, min(math.floor(self.load.requests * share), self.load.requests - 1))
        return self.under(Concurrency(requests)) if requests < self.load.requests else None

    def under(self, load: Concurrency) -> Contender:
        """The same config under less load, where throughput is as much less as on the trial's curve.

        Latencies follow by Little's law: those of one curve are too noisy to tell how a percentile falls.
        """
        curve, share = self.trial.curve, load.requests / self.load.requests
        slower = throughput_at(curve, load.requests) / throughput_at(curve, self.load.requests)
        latency_ms = {name: value * min(1.0, share / slower) for name, value in self.latency_ms.items()}
        return replace(self, load=load, throughput=slower * self.throughput, latency_ms=latency_ms)


def contenders(trials: Iterable[TrialResult], slo: SLO, max_gpu_memory: int | None = None) -> tuple[Contender, ...]:
    """The best point of each trial that could be deployed and has one, in order of throughput, the highest first.

    Of the curve through all points of the trial, so that it is not the load at which one of them was lucky.
    """
    points = (best_point(smoothed_points(usable_points([trial], (), max_gpu_memory)), slo) for trial in trials)
    return tuple(sorted((Contender.of(p) for p in points if p), key=lambda c: c.throughput, reverse=True))
