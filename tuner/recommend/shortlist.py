"""The shortlist: the trials that may be the best one, each with its curve over all loads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tuner.core.loads import Concurrency
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO, Statistic, share_of
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import points_of, smoothed_points, usable_points
from tuner.recommend.recommend import holds

# Ratio of neighbouring loads to choose from.
_STEP = 1.04
# Share of the most merit that counts as equal to it; the lowest load of these is chosen.
_EQUAL = 0.995
# Logarithm of the ratio of latencies that count as equal.
_ALIKE = 0.02
# The least ratio of a latency to its limit.
_LEAST_RATIO = 1e-9

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShortlistEntry:
    """A trial with the smoothed curve of its launch in the search.

    Attributes:
        trial: The trial.
        points: The points of the curve, in order of load; not empty.
        slo: The limits; may be empty.
        objective: The objective.
    """

    trial: TrialResult
    points: tuple[OperatingPoint, ...]
    slo: SLO
    objective: Objective = THROUGHPUT

    @classmethod
    def of(cls, trial: TrialResult, slo: SLO, objective: Objective = THROUGHPUT) -> ShortlistEntry | None:
        """The entry of a trial; None when no point of its smoothed curve holds the SLO."""
        points = [p for p in smoothed_points(points_of(trial, (), objective)) if p.merit(objective).value > 0]
        if not any(holds(p, slo) for p in points):
            return None
        return cls(trial, tuple(p.point for p in points), slo, objective)

    @cached_property
    def best_value(self) -> float:
        """The logarithm of the most merit within the SLO, as searched; see `OperatingPoint.merit`."""
        load = self.best_load()
        return float(self.merit(load.level)) if load else -math.inf

    def merit(self, loads: ArrayLike) -> _Floats:
        """The logarithm of merit; proportional to the load below the lowest one of the curve."""
        below: _Floats = np.minimum(0.0, np.log(loads) - np.log(self._levels[0]))
        return self._between(loads, self._merits) + below

    def latency(self, loads: ArrayLike, spread: float = 0.0) -> _Floats:
        """The largest logarithm of a latency over its limit; -infinity without limits.

        In a percentile over many launches, the requests of slower launches are mixed with the others. If latencies are
        log-normal, the variances within and between launches add up. Beyond the curve, latency grows with the load.

        Args:
            loads: The loads, in requests in flight.
            spread: Standard deviation of the logarithm of latency between launches.
        """
        beyond = np.maximum(0.0, np.log(loads) - np.log(self._levels[-1]))
        worst = np.full(np.shape(loads), -np.inf)
        for z, logs, tail in self._limited:
            mixed = np.hypot(tail, z * spread) - tail
            worst = np.maximum(worst, self._between(loads, logs + mixed) + beyond)
        return worst

    def excess(self, point: OperatingPoint) -> float:
        """The same of a measured point."""
        ratio = 1 + self.slo.excess({name: interval.value for name, interval in point.limitable_ms.items()})
        return math.log(max(ratio, _LEAST_RATIO))

    def best_load(
        self, slower: float = 0.0, margin: float = 0.0, spread: float = 0.0, below: float = math.inf
    ) -> Concurrency | None:
        """The load of the most merit within the SLO; of almost equal ones the lowest, or lowest searched one.

        Args:
            slower: Logarithm of a factor on latencies.
            margin: Margin to the limits, as a logarithm; it is given up if no load has it.
            spread: See `latency`.
            below: Only lower loads are considered.

        Returns:
            The load, or the lowest one if none is within the SLO; None: there is no load.
        """
        loads = self._loads[self._loads < below]
        if not loads.size:
            return None
        merit, latency = self.merit(loads), self.latency(loads, spread) + slower
        within = latency <= max(-margin, min(0.0, latency.min() + _ALIKE))
        if not within.any():
            return Concurrency(int(loads[0]))
        equal = within & (merit >= merit[within].max() + math.log(_EQUAL))
        searched = equal & np.isin(loads, self._levels)
        return Concurrency(int(loads[np.argmax(searched if searched.any() else equal)]))

    @cached_property
    def _loads(self) -> _Floats:
        """The loads to choose from: those of the search and, with an SLO, those in between, in small steps."""
        if not self.slo.limits:
            return self._levels
        steps = math.ceil(math.log(self._levels[-1]) / math.log(_STEP))
        between = np.rint(np.geomspace(1, self._levels[-1], 1 + steps))
        loads: _Floats = np.unique(np.concatenate([between, self._levels]))
        return loads

    @cached_property
    def _merits(self) -> _Floats:
        logs: _Floats = np.log([point.merit(self.objective).value for point in self.points])
        return logs

    @cached_property
    def _limited(self) -> list[tuple[float, _Floats, _Floats]]:
        """For each limit: the normal quantile, and at each point the latencies over the limit, and over the median."""
        limited = []
        for limit in self.slo.limits:
            logs, middle = (
                np.log(np.array([point.limitable_ms[key].value for point in self.points]))
                for key in (limit.key, Statistic(limit.metric, "p50").key)
            )
            z = float(special.ndtri(share_of(limit.percentile)))
            limited.append((z, logs - math.log(limit.limit_ms), np.maximum(0.0, logs - middle)))
        return limited

    @cached_property
    def _levels(self) -> _Floats:
        return np.array([point.load.level for point in self.points])

    def _between(self, loads: ArrayLike, values: _Floats) -> _Floats:
        return np.array(np.interp(np.log(loads), np.log(self._levels), values))


def shortlist(
    trials: Iterable[TrialResult], slo: SLO, max_gpu_memory: int | None = None, objective: Objective = THROUGHPUT
) -> tuple[ShortlistEntry, ...]:
    """The trials with a point that may be deployed and holds the SLO on their smoothed curve; see `usable_points`."""
    usable = (trial for trial in trials if usable_points([trial], (), max_gpu_memory, objective))
    entries = (ShortlistEntry.of(trial, slo, objective) for trial in usable)
    return tuple(entry for entry in entries if entry)
