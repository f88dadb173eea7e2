"""What is to be expected of candidates: the twin's word, corrected by what it was wrong about, with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuner.core.slo import Percentile
from tuner.search.twin.error_model import ErrorModel, place
from tuner.search.twin.observed_trial import ObservedTrial
from tuner.search.twin.scheduling import Scheduling
from tuner.search.twin.twin import Twin

# With batches, throughput grows until there are requests for all instances, those that are prepared included.
_FULL = 4
_FEWEST_LEVELS = 4
# Instances or batches beyond those that were launched may gain in proportion, or nothing: the standard deviation of the
# logarithm of the error, for each unit of the logarithm by which they go beyond.
_MORE_INSTANCES, _LARGER_BATCHES = 0.4, 0.25


@dataclass(frozen=True)
class Curves:
    """What is expected of candidates (rows) under rising loads (columns); NaN beyond what they are worth.

    Attributes:
        concurrency: Requests under way, by column.
        throughput: Logarithms of inferences a second.
        throughput_deviation: Their standard deviations.
        latency: Logarithms of the latency in ms at the percentile that counts.
        latency_deviation: Their standard deviations.
        most: Logarithms of the inferences a second that the cores and the GPUs allow, by candidate; infinite: unknown.
    """

    concurrency: NDArray[np.float64]
    throughput: NDArray[np.float64]
    throughput_deviation: NDArray[np.float64]
    latency: NDArray[np.float64]
    latency_deviation: NDArray[np.float64]
    most: NDArray[np.float64]


@dataclass
class ForecastErrors:
    """By how much each trial was off before it was known, as logarithms, in the order in which they came.

    Attributes:
        seen: Trials that were held against a forecast.
    """

    throughput: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    seen: int = 0

    @property
    def typical(self) -> float:
        """The median error of throughput, as a share."""
        return math.expm1(float(np.median(self.throughput))) if self.throughput else 0.0

    def learn(self, trials: Sequence[ObservedTrial | None], first: int, forecast: Callable[[int], Forecast]) -> None:
        """Hold each trial that is new against what those before it foretold.

        Args:
            trials: All so far, in order; None for one that tells nothing.
            first: The number of the first that may be foretold.
            forecast: What so many of them foretell.
        """
        for number in range(max(first, self.seen), len(trials)):
            if told := trials[number]:
                forecast(number).hold_against(told, self)
            self.seen = number + 1


class Forecast:
    """Expectations, from all trials so far.

    Args:
        trials: What was measured; at least one with the server's statistics.
        percentile: The latency percentile that counts.
        batch_size: Inferences in each request.
        forecast_errors: What the past forecasts of the same model got wrong.
        cores: Processors that the server may use; see `Twin`.
    """

    def __init__(
        self,
        trials: Sequence[ObservedTrial],
        percentile: Percentile,
        batch_size: int,
        forecast_errors: ForecastErrors,
        cores: int | None = None,
    ) -> None:
        self._unit = batch_size
        self.twin = Twin(trials, percentile, batch_size, cores)
        self._most_instances = max(trial.scheduling.instances for trial in trials)
        self._largest_batch = max(_batch(trial.scheduling) for trial in trials)
        places, owners, throughput, latency, unsure = [], [], [], [], []
        for number, trial in enumerate(trials):
            for level in trial.levels:
                predicted = self.twin.predict(trial.scheduling, trial.setting, level.concurrency)
                places.append(place(trial.scheduling, trial.setting, level.concurrency))
                owners.append(number)
                throughput.append(math.log(level.throughput / predicted.throughput))
                latency.append(math.log(level.latency_ms / predicted.latency_ms))
                unsure.append((level.throughput_deviation, level.latency_deviation))
        at, of, by = np.array(places), np.array(owners), np.array(unsure)
        self._throughput = ErrorModel(at, of, np.array(throughput), by[:, 0], forecast_errors.throughput)
        self._latency = ErrorModel(at, of, np.array(latency), by[:, 1], forecast_errors.latency)

    def curves(self, candidates: Sequence[tuple[Scheduling, int]], highest: int) -> Curves:
        """What schedulings, with their settings, are expected to do under loads up to the highest."""
        loads = [2**power for power in range(int(math.log2(highest)) + 1)]
        shape = len(candidates), len(loads)
        throughput, latency = np.full(shape, np.nan), np.full(shape, np.nan)
        places, rows, columns, beyond = [], [], [], []
        for row, (scheduling, setting) in enumerate(candidates):
            enough = max(_FULL * scheduling.instances * _batch(scheduling), 2**_FEWEST_LEVELS)
            for column, concurrency in enumerate(loads):
                if concurrency > enough:
                    break
                predicted = self.twin.predict(scheduling, setting, concurrency)
                throughput[row, column] = math.log(predicted.throughput)
                latency[row, column] = math.log(predicted.latency_ms)
                places.append(place(scheduling, setting, concurrency))
                rows.append(row)
                columns.append(column)
                beyond.append(self._beyond(scheduling, concurrency))
        deviations = np.full(shape, np.nan), np.full(shape, np.nan)
        at = np.array(places)
        for errors, told, deviation in (
            (self._throughput, throughput, deviations[0]),
            (self._latency, latency, deviations[1]),
        ):
            correction = errors.at(at)
            told[rows, columns] += correction.mean
            deviation[rows, columns] = np.hypot(correction.deviation, beyond)
        allowed = np.log([self.twin.most_per_s(*candidate) for candidate in candidates])
        return Curves(np.array(loads, float), throughput, deviations[0], latency, deviations[1], allowed)

    def latency_ms(
        self, scheduling: Scheduling, setting: int, due_ms: NDArray[np.float64], *, keeps_up: float
    ) -> tuple[float, float]:
        """The latency of requests that come when they are due, and the standard deviation of its logarithm.

        It is infinite where less than the share `keeps_up` of what is due is answered in time.
        """
        predicted = self.twin.predict_at_rate(scheduling, setting, due_ms)
        rate = len(due_ms) / (due_ms[-1] - due_ms[0]) * 1e3
        if predicted.throughput < keeps_up * rate * self._unit:
            return math.inf, self._latency.amplitude
        under_way = max(1, round(rate * predicted.latency_ms / 1e3))
        correction = self._latency.at(np.array([place(scheduling, setting, under_way)]))
        deviation = math.hypot(correction.deviation[0], self._beyond(scheduling, under_way))
        return predicted.latency_ms * math.exp(correction.mean[0]), deviation

    def throughput_deviation(self, scheduling: Scheduling, setting: int, rate: float, latency_ms: float) -> float:
        """The standard deviation of throughput's logarithm where requests come at a rate and take so long."""
        under_way = max(1, round(rate * latency_ms / 1e3))
        correction = self._throughput.at(np.array([place(scheduling, setting, under_way)]))
        return math.hypot(correction.deviation[0], self._beyond(scheduling, under_way))

    def _beyond(self, scheduling: Scheduling, under_way: int) -> float:
        """What nobody knows of instances and batches that no launch had, as a deviation of a logarithm.

        No more of them are at work than there are requests.
        """
        requests = max(1, under_way)
        instances = min(scheduling.instances, requests) / self._most_instances
        batch = min(_batch(scheduling), requests * self._unit) / self._largest_batch
        return _MORE_INSTANCES * math.log(max(1.0, instances)) + _LARGER_BATCHES * math.log(max(1.0, batch))

    def hold_against(self, trial: ObservedTrial, forecast_errors: ForecastErrors) -> None:
        """Note by how much a trial that was not known differs from what was expected of it."""
        at = np.array([place(trial.scheduling, trial.setting, level.concurrency) for level in trial.levels])
        predicted = [self.twin.predict(trial.scheduling, trial.setting, level.concurrency) for level in trial.levels]
        measured = np.log([[level.throughput, level.latency_ms] for level in trial.levels])
        told = np.log([[each.throughput, each.latency_ms] for each in predicted])
        told += np.stack([self._throughput.at(at).mean, self._latency.at(at).mean], axis=1)
        off = np.sqrt(np.mean(np.square(measured - told), axis=0))
        forecast_errors.throughput.append(float(off[0]))
        forecast_errors.latency.append(float(off[1]))


def _batch(scheduling: Scheduling) -> int:
    return scheduling.max_batch_size if scheduling.dynamic_batching else 1
