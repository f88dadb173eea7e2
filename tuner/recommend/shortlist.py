"""The shortlist: the best point of each trial in the search, and estimates of it at lower loads."""

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
class ShortlistEntry:
    """A config under a load that may be the best one.

    Attributes:
        trial: The trial of the config.
        load: The load.
        throughput: Estimated throughput under this load, in inferences/s.
        latency_ms: Estimated latency by percentile, in ms.
        searched: Whether the estimates come from the search alone, not from relaunches.
    """

    trial: TrialResult
    load: Concurrency
    throughput: float
    latency_ms: Mapping[Percentile, float]
    searched: bool = True

    @classmethod
    def of(cls, point: TrialPoint) -> ShortlistEntry:
        """An entry from a point of the search, whose loads are closed loops."""
        load = Concurrency(int(point.point.load.level))
        latency_ms = {name: point.point.latency_ms[name].value for name in PERCENTILES}
        return cls(point.trial, load, point.point.throughput.value, latency_ms)

    @classmethod
    def at_most(cls, trial: TrialResult, slo: SLO) -> ShortlistEntry | None:
        """The trial at the load of highest throughput within the SLO on its smoothed curve; None: there is none.

        The point may be near a limit: relaunches show whether it breaks it.
        """
        within_slo = [p for p in smoothed_points(points_of(trial)) if holds(p, slo)]
        most = max(within_slo, key=lambda p: p.point.throughput.value, default=None)
        return None if most is None else cls.of(replace(most, trial=trial))

    def lower(self, share: float) -> ShortlistEntry | None:
        """The same config under a share (below 1) of the load; None when there is no lower load."""
        requests = max(1, min(math.floor(self.load.requests * share), self.load.requests - 1))
        return self.under(Concurrency(requests)) if requests < self.load.requests else None

    def under(self, load: Concurrency) -> ShortlistEntry:
        """An estimate of the same config under less load. Throughput falls in proportion to the trial's curve.

        Latencies follow from Little's law, as the percentiles of a single curve are too noisy.
        """
        curve, share = self.trial.curve, load.requests / self.load.requests
        slower = throughput_at(curve, load.requests) / throughput_at(curve, self.load.requests)
        latency_ms = {name: value * min(1.0, share / slower) for name, value in self.latency_ms.items()}
        return replace(self, load=load, throughput=slower * self.throughput, latency_ms=latency_ms)


def shortlist(trials: Iterable[TrialResult], slo: SLO, max_gpu_memory: int | None = None) -> tuple[ShortlistEntry, ...]:
    """The best deployable point of each trial, in descending order of throughput.

    It is chosen on the smoothed curve of the trial, so that the load does not depend on a single lucky point.
    """
    points = (best_point(smoothed_points(usable_points([trial], (), max_gpu_memory)), slo) for trial in trials)
    return tuple(sorted((ShortlistEntry.of(p) for p in points if p), key=lambda c: c.throughput, reverse=True))
