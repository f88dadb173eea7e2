"""Predictions for candidates by the simulator, corrected by its past errors, with their uncertainty."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuner.core.slo import Percentile
from tuner.search.twin.error_model import ErrorModel, place
from tuner.search.twin.observed_trial import ObservedTrial
from tuner.search.twin.scheduling import Scheduling
from tuner.search.twin.twin import Prediction, Twin, Variation

# Curves end at this many requests for each instance and item of a batch, as throughput does not grow beyond.
_FULL = 4
# Curves have at least this many doublings of the load.
_LEAST_DOUBLINGS = 4
# For `Forecast.reached`: the factor from load to load, whose square is the first one. No higher load is tried after a
# latency of so many limits, and less than so many times the throughput of the load before.
_STEP, _FAR, _SATURATED = 4, 1.5, 2.0
# Uncertainty of extrapolation beyond the launched instances and batch sizes, from no gain to a proportional one: the
# standard deviation of the logarithm, for each unit of the logarithm beyond.
MORE_INSTANCES, LARGER_BATCHES = 0.4, 0.25


@dataclass(frozen=True)
class Curves:
    """Predicted curves of n candidates (rows) under k rising loads (columns); NaN beyond the load that fills a server.

    Attributes:
        concurrency: (k,) number of requests in flight.
        throughput: (n, k) logarithms of throughput in inferences/s.
        throughput_deviation: (n, k) standard deviations of these.
        latency: (n, k) logarithms of latency in ms at the SLO's percentile.
        latency_deviation: (n, k) standard deviations of these.
        most: (n,) logarithms of the highest throughput that cores and GPUs allow, in inferences/s; infinite: unknown.
    """

    concurrency: NDArray[np.float64]
    throughput: NDArray[np.float64]
    throughput_deviation: NDArray[np.float64]
    latency: NDArray[np.float64]
    latency_deviation: NDArray[np.float64]
    most: NDArray[np.float64]


@dataclass
class ForecastErrors:
    """The error of the prediction of each trial from the trials before it, in order.

    Attributes:
        throughput: Root mean square of the logarithms of measured over predicted throughput, for each trial.
        latency: Root mean square of the logarithms for latency, for each trial.
        seen: Number of trials processed.
    """

    throughput: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    seen: int = 0

    @property
    def typical(self) -> float:
        """The median error of throughput, as a share."""
        return math.expm1(float(np.median(self.throughput))) if self.throughput else 0.0

    @property
    def typical_of_latency(self) -> float:
        """The median error of latency, as a share."""
        return math.expm1(float(np.median(self.latency))) if self.latency else 0.0

    def learn(self, trials: Sequence[ObservedTrial | None], first: int, forecast: Callable[[int], Forecast]) -> None:
        """Compare each new trial with its prediction from the trials before it.

        Args:
            trials: All trials so far, in order; None for one without measurements.
            first: The number of the first trial to predict.
            forecast: Makes the forecast from the first n trials.
        """
        for number in range(max(first, self.seen), len(trials)):
            if trial := trials[number]:
                forecast(number).compare_with(trial, self)
            self.seen = number + 1


class Forecast:
    """Predictions from all trials so far.

    Args:
        trials: The measured trials; at least one level must have the server's execution times.
        percentile: The SLO's latency percentile.
        batch_size: Inferences in each request.
        forecast_errors: Errors of past forecasts of the same model.
        cores: Number of processors that the server may use; see `Twin`.
        variation: The variation of execution times; see `Twin`.
    """

    def __init__(
        self,
        trials: Sequence[ObservedTrial],
        percentile: Percentile,
        batch_size: int,
        forecast_errors: ForecastErrors,
        cores: int | None = None,
        *,
        variation: Variation | None = None,
    ) -> None:
        self._unit = batch_size
        self.twin = Twin(trials, percentile, batch_size, cores, variation=variation)
        self._most_instances = max(trial.scheduling.instances for trial in trials)
        self._largest_batch = max(largest_batch(trial.scheduling) for trial in trials)
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
        """Predict the curves of candidates (scheduling, setting) under loads that double up to the highest."""
        loads = loads_of(highest)
        shape = len(candidates), len(loads)
        throughput, latency = np.full(shape, np.nan), np.full(shape, np.nan)
        places, rows, columns, beyond = [], [], [], []
        for row, (scheduling, setting) in enumerate(candidates):
            for column, concurrency in enumerate(loads_of(highest, scheduling)):
                predicted = self.twin.predict(scheduling, setting, concurrency)
                throughput[row, column] = math.log(predicted.throughput)
                latency[row, column] = math.log(predicted.latency_ms)
                places.append(place(scheduling, setting, concurrency))
                rows.append(row)
                columns.append(column)
                beyond.append(self._beyond(scheduling, concurrency))
        deviations = np.full(shape, np.nan), np.full(shape, np.nan)
        at = np.array(places)
        for errors, values, deviation in (
            (self._throughput, throughput, deviations[0]),
            (self._latency, latency, deviations[1]),
        ):
            correction = errors.at(at)
            values[rows, columns] += correction.mean
            deviation[rows, columns] = np.hypot(correction.deviation, beyond)
        allowed = np.log([self.twin.most_per_s(*candidate) for candidate in candidates])
        return Curves(np.array(loads, float), throughput, deviations[0], latency, deviations[1], allowed)

    def reached(
        self, candidates: Sequence[tuple[Scheduling, int]], limit_ms: float, highest: int
    ) -> NDArray[np.float64]:
        """Roughly the highest throughput of candidates (scheduling, setting) within a latency limit.

        Fewer loads are simulated than for `curves`, none of them far beyond saturation.

        Args:
            candidates: The n candidates.
            limit_ms: The limit at the SLO's percentile, in ms.
            highest: The highest load.

        Returns:
            (n,) logarithms of throughput in inferences/s, interpolated at the limit; -inf: no load holds it.
        """
        limit = math.log(limit_ms)
        predicted = [self._around(*candidate, limit_ms, highest) for candidate in candidates]
        for row, (candidate, curve) in enumerate(zip(candidates, self._corrected(candidates, predicted), strict=True)):
            held = max((load for load, _, latency in curve if latency <= limit), default=0)
            if held and any(load > held for load, _, _ in curve):
                # Between these two loads, throughput may stop to rise.
                middle = held * math.isqrt(_STEP)
                predicted[row][middle] = self.twin.predict(*candidate, middle)
        return np.array([_at_limit(curve, limit) for curve in self._corrected(candidates, predicted)])

    def _corrected(
        self, candidates: Sequence[tuple[Scheduling, int]], predicted: Sequence[Mapping[int, Prediction]]
    ) -> Iterator[list[tuple[int, float, float]]]:
        """Each candidate's ascending loads with the logarithms of throughput and latency, corrected."""
        loads = [sorted(each) for each in predicted]
        at = np.array([place(*who, load) for who, own in zip(candidates, loads, strict=True) for load in own])
        throughput, latency = self._throughput.mean(at).tolist(), self._latency.mean(at).tolist()
        end = 0
        for own, known in zip(loads, predicted, strict=True):
            start, end = end, end + len(own)
            yield [
                (load, more + math.log(known[load].throughput), slower + math.log(known[load].latency_ms))
                for load, more, slower in zip(own, throughput[start:end], latency[start:end], strict=True)
            ]

    def _around(self, scheduling: Scheduling, setting: int, limit_ms: float, highest: int) -> dict[int, Prediction]:
        """The predictions of a few loads, from one clearly within a limit to one far beyond it."""
        predicted: dict[int, Prediction] = {}
        concurrency, before = min(_STEP**2, highest), 0.0
        while concurrency <= min(highest, _STEP * enough_for(scheduling)):
            now = predicted[concurrency] = self.twin.predict(scheduling, setting, concurrency)
            # Before saturation, latency may fall with the load, where batches wait to be filled.
            if now.latency_ms > _FAR * limit_ms and now.throughput < _SATURATED * before:
                break
            concurrency, before = concurrency * _STEP, now.throughput
        concurrency = min(predicted)
        while concurrency > 1 and predicted[concurrency].latency_ms > limit_ms / _FAR:
            concurrency = max(1, concurrency // _STEP)
            predicted[concurrency] = self.twin.predict(scheduling, setting, concurrency)
        return predicted

    def latency_ms(
        self, scheduling: Scheduling, setting: int, due_ms: NDArray[np.float64], *, keeps_up: float
    ) -> tuple[float, float]:
        """Predict the latency in ms under an open loop, and the standard deviation of its logarithm.

        Args:
            scheduling: The scheduling.
            setting: The number of its setting.
            due_ms: Arrival times in ms, ascending.
            keeps_up: The latency is infinite when the server answers less than this share of the requests in time.
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
        """Standard deviation of the logarithm of throughput at a rate in requests/s and a latency in ms."""
        under_way = max(1, round(rate * latency_ms / 1e3))
        correction = self._throughput.at(np.array([place(scheduling, setting, under_way)]))
        return math.hypot(correction.deviation[0], self._beyond(scheduling, under_way))

    def _beyond(self, scheduling: Scheduling, under_way: int) -> float:
        return beyond(scheduling, under_way, self._unit, self._most_instances, self._largest_batch)

    def compare_with(self, trial: ObservedTrial, forecast_errors: ForecastErrors) -> None:
        """Record the prediction error of a trial to which the forecast was not fitted."""
        at = np.array([place(trial.scheduling, trial.setting, level.concurrency) for level in trial.levels])
        predicted = [self.twin.predict(trial.scheduling, trial.setting, level.concurrency) for level in trial.levels]
        measured = np.log([[level.throughput, level.latency_ms] for level in trial.levels])
        expected = np.log([[prediction.throughput, prediction.latency_ms] for prediction in predicted])
        expected += np.stack([self._throughput.at(at).mean, self._latency.at(at).mean], axis=1)
        off = np.sqrt(np.mean(np.square(measured - expected), axis=0))
        forecast_errors.throughput.append(float(off[0]))
        forecast_errors.latency.append(float(off[1]))


def _at_limit(curve: Sequence[tuple[int, float, float]], limit: float) -> float:
    """The logarithm of throughput where a curve reaches a limit; all are logarithms. -inf: no load holds it."""
    best = -math.inf
    for (_, throughput, latency), (_, beyond_throughput, beyond_latency) in itertools.pairwise([*curve, curve[-1]]):
        if latency <= limit:
            held = throughput
            if beyond_latency > limit:
                share = (limit - latency) / (beyond_latency - latency)
                held += share * max(0.0, beyond_throughput - held)
            best = max(best, held)
    return best


def largest_batch(scheduling: Scheduling) -> int:
    """The most inferences in one execution."""
    return scheduling.max_batch_size if scheduling.dynamic_batching else 1


def loads_of(highest: int, scheduling: Scheduling | None = None) -> list[int]:
    """Loads that double up to the highest; for a scheduling up to the load that fills it."""
    loads = [2**power for power in range(int(math.log2(highest)) + 1)]
    if scheduling is None:
        return loads
    return [load for load in loads if load <= enough_for(scheduling)]


def enough_for(scheduling: Scheduling) -> int:
    """The load that fills a server."""
    least: int = 2**_LEAST_DOUBLINGS
    return max(_FULL * scheduling.instances * largest_batch(scheduling), least)


def beyond(scheduling: Scheduling, under_way: int, unit: int, most_instances: int, largest: int) -> float:
    """Uncertainty of extrapolation, as the standard deviation of a logarithm.

    At most as many instances and batch items are in use as there are requests.

    Args:
        scheduling: The scheduling to predict.
        under_way: Number of requests in flight.
        unit: Inferences in each request.
        most_instances: The most instances that were launched.
        largest: The largest batches that were launched.
    """
    requests = max(1, under_way)
    instances = min(scheduling.instances, requests) / most_instances
    batch = min(largest_batch(scheduling), requests * unit) / largest
    return MORE_INSTANCES * math.log(max(1.0, instances)) + LARGER_BATCHES * math.log(max(1.0, batch))
