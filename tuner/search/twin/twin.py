"""The simulator of a model's server, fitted to trials; predicts any scheduling under any load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tuner.core.slo import Percentile, share_of
from tuner.search.twin.demand import DeviceDemand
from tuner.search.twin.observed_trial import Level, ObservedTrial
from tuner.search.twin.scheduling import Scheduling
from tuner.search.twin.service import ServiceTimes
from tuner.stats.blocks import Z95

_NOT_DUE = np.empty(0)
# Simulated requests: the least number, and the number for each request in flight. Then the same for the warm-up.
_REQUESTS, _ROUNDS = 300, 6
_WARM_UP, _WARM_UP_ROUNDS = 50, 1.5
# The same seed for all candidates, so that only their configs differ (common random numbers).
_SEED = 1
# Values to try for the variation of execution times: a random factor for all, and a pause for some executions.
_SPREADS = (0.03, 0.1, 0.2, 0.35, 0.5, 0.7)
_PAUSES = ((0.0, 0.0), (0.02, 8.0), (0.05, 2.0), (0.05, 8.0))
# Priors: time of a request outside the server, and time between two answers of a batch, both in ms.
_AWAY_MS, _ANSWER_MS = 0.2, 0.03

Variation = tuple[float, tuple[float, float]]
"""The variation of execution times: spread, and share and mean length in ms of pauses; see `batcher.Scenario`."""


@dataclass(frozen=True)
class Prediction:
    """The prediction of one load level.

    Attributes:
        throughput: Throughput, in inferences/s.
        latency_ms: Latency at the SLO's percentile, in ms.
        batch: Mean batch size.
        busy: Mean number of busy instances.
    """

    throughput: float
    latency_ms: float
    batch: float
    busy: float


class Twin:
    """The simulator of one model on one machine.

    Args:
        trials: The measured trials; at least one level must have the server's execution times.
        percentile: The SLO's latency percentile.
        batch_size: Inferences in each request.
        cores: Number of processors that the server may use; None: all of the machine, if known.
        variation: The variation of execution times; None: it is fitted, which takes most of the time.
        due_ms: Ascending arrival times in ms, if the trials were measured in an open loop; None: in closed loops.
    """

    def __init__(
        self,
        trials: Sequence[ObservedTrial],
        percentile: Percentile,
        batch_size: int = 1,
        cores: int | None = None,
        *,
        variation: Variation | None = None,
        due_ms: NDArray[np.float64] | None = None,
    ) -> None:
        levels = [level for trial in trials for level in trial.levels]
        self._share = share_of(percentile)
        self._unit = batch_size
        self._due_ms = due_ms
        self._service = ServiceTimes(execution for level in levels for execution in level.executions)
        self._demands = _demands(levels, cores)
        self._answer_ms, self._away_ms = _transport(levels)
        self._idle_ms = min((level.idle_ms for level in levels if level.idle_ms is not None), default=0.0)
        self._tables: dict[tuple[int, int, int], NDArray[np.float64]] = {}
        self.variation = variation or self._most_alike(trials)

    def predict(self, scheduling: Scheduling, setting: int, concurrency: int) -> Prediction:
        """Predict a scheduling in a closed loop of `concurrency` requests, or in the open loop of the trials."""
        if self._due_ms is not None:
            return self.predict_at_rate(scheduling, setting, self._due_ms)
        return self._serve(scheduling, setting, concurrency, _NOT_DUE)

    def predict_at_rate(self, scheduling: Scheduling, setting: int, due_ms: NDArray[np.float64]) -> Prediction:
        """Predict a scheduling in an open loop, given ascending arrival times in ms."""
        return self._serve(scheduling, setting, 0, due_ms)

    def most_per_s(self, scheduling: Scheduling, setting: int) -> float:
        """Upper bound (97.5 %) of the throughput that cores and GPUs allow, in inferences/s; infinite: unknown."""
        most = self._largest(scheduling)
        allowed = (demand.most_per_s(setting, most) * math.exp(Z95 * demand.spread) for demand in self._demands)
        return min(allowed, default=math.inf)

    def demand_off(self, level: Level) -> float | None:
        """The logarithm of a level's device time over that of the first setting, of what limits it; None: unknown."""
        works = (level.cores_work, level.gpus_work)
        off = [demand.off(work) for demand, work in zip(self._demands, works, strict=False) if work]
        return max(off, default=None)

    def _largest(self, scheduling: Scheduling) -> int:
        return max(self._unit, scheduling.max_batch_size if scheduling.dynamic_batching else 1)

    def _serve(self, scheduling: Scheduling, setting: int, concurrency: int, due_ms: NDArray[np.float64]) -> Prediction:
        from tuner.search.twin import batcher  # noqa: PLC0415 (imports numba, which takes long)

        warm_up = int(_WARM_UP + _WARM_UP_ROUNDS * concurrency)
        requests = max(_REQUESTS, _ROUNDS * concurrency) if concurrency else len(due_ms) - warm_up
        largest = self._largest(scheduling)
        sizes = [size for size in scheduling.preferred if size <= largest] or [largest]
        preferred = np.zeros(largest + 1, bool)
        preferred[sizes] = True
        table_ms = self._table_ms(setting, largest, scheduling.instances)
        # Clients may stay synchronised for long, depending on their start. So both starts are simulated.
        starts_ms = (self._answer_ms, table_ms[1, 0] / concurrency) if concurrency > 1 else (self._answer_ms,)
        latency_ms = np.empty((len(starts_ms), requests))
        spread, (pause_share, pause_ms) = self.variation
        scenario = batcher.Scenario(
            service_ms=table_ms,
            preferred=preferred,
            dynamic=scheduling.dynamic_batching,
            delay_ms=scheduling.delay_us / 1e3,
            request_size=self._unit,
            concurrency=concurrency,
            due_ms=due_ms,
            spread=spread,
            pause_share=pause_share,
            pause_ms=pause_ms,
            answer_ms=self._answer_ms,
            away_ms=self._away_ms,
            warm_up=warm_up,
        )
        figures = [
            batcher.serve(scenario._replace(apart_ms=apart_ms), latency_ms[place], _SEED + place)
            for place, apart_ms in enumerate(starts_ms)
        ]
        throughput, batch, busy = (sum(figure) / len(figures) for figure in zip(*figures, strict=True))
        return Prediction(throughput, _quantile(latency_ms.ravel(), self._share), batch, busy)

    def _table_ms(self, setting: int, largest: int, instances: int) -> NDArray[np.float64]:
        key = setting, largest, instances
        if key not in self._tables:
            table_ms = self._service.table_ms(setting, largest, instances) + self._idle_ms
            for demand in self._demands:
                table_ms = np.maximum(table_ms, demand.least_ms(setting, largest, instances))
            self._tables[key] = table_ms
        return self._tables[key]

    def _most_alike(self, trials: Sequence[ObservedTrial]) -> Variation:
        """Fit the variation of execution times to the measured latency percentiles.

        First comes the best spread without pauses, then the best pause with it, then the best spread with that. On
        recorded grids, this found the best of all pairs in 34 of 36 fits, with less than half of the simulations.
        """
        levels = [(trial, level) for trial in trials for level in trial.levels[::2]]

        @cache
        def error(variation: Variation) -> float:
            self.variation = variation
            predicted = (self.predict(trial.scheduling, trial.setting, level.concurrency) for trial, level in levels)
            ratios = (each.latency_ms / level.latency_ms for each, (_, level) in zip(predicted, levels, strict=True))
            return sum(abs(math.log(ratio)) for ratio in ratios)

        pause = _PAUSES[0]
        for _ in range(2):
            spread, _ = min(((spread, pause) for spread in _SPREADS), key=error)
            _, pause = min(((spread, pause) for pause in _PAUSES), key=error)
        return spread, pause


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """A quantile by partial sorting in place: `np.quantile` would take half as long as the simulation."""
    low, beyond = divmod(share * (len(values) - 1), 1)
    places = int(low), min(int(low) + 1, len(values) - 1)
    values.partition(places)
    below, above = values[list(places)]
    return float(below + beyond * (above - below))


def _demands(levels: Sequence[Level], cores: int | None) -> list[DeviceDemand]:
    """The device demands of executions, one for each kind of device with measurements."""
    on_cores = [level.cores_work for level in levels if level.cores_work]
    capacity = cores or max((level.cores for level in levels if level.cores), default=None)
    demands = [DeviceDemand(on_cores, capacity)] if on_cores and capacity else []
    on_gpus = [level.gpus_work for level in levels if level.gpus_work]
    if on_gpus:
        demands.append(DeviceDemand(on_gpus, max(level.gpus for level in levels)))
    return demands


def _transport(levels: Sequence[Level]) -> tuple[float, float]:
    """Fit the time between two answers of a batch, and the time of a request outside the server, both in ms.

    Answers of a batch leave one after the other, so on average half of the batch leaves before an answer.
    """
    rows, wanted = [(1 / _AWAY_MS, 0.0), (0.0, 1 / _ANSWER_MS)], [1.0, 1.0]
    for level in levels:
        if level.batch and level.overhead_ms is not None:
            weight = 1 / (_AWAY_MS + level.overhead_ms)
            rows.append((weight, weight * (level.batch + 1) / 2))
            wanted.append(weight * level.overhead_ms)
    (away_ms, answer_ms), _ = nnls(np.array(rows), np.array(wanted))
    return float(answer_ms), float(away_ms)
