"""What it would take to hold a load: from a finished study, and no server."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tuner.core.errors import JobError
from tuner.core.record import Interval
from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.search.refusals import Refusals
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.forecast import Forecast, ForecastErrors
from tuner.search.twin.observed_trial import ObservedTrial, observed_trial
from tuner.search.twin.scheduling import Scheduling, why_not_simulated
from tuner.space.candidate import Assignment, key_of
from tuner.space.space import SearchSpace
from tuner.stats.blocks import Z95
from tuner.study.study import Study

# Arrivals that are simulated for a rate, the lowest one as a share of the highest, and halvings until it is known to
# a percent.
_ARRIVALS, _LOWEST, _HALVINGS = 4_000, 1 / 1_024, 10
# Of the candidates that were not launched, only those that look best in a closed loop are looked at so closely.
_CLOSELY = 24
_HIGHEST_LOAD = 1_024
# A server that answers less than this share of what is due falls behind.
_KEEPS_UP = 0.97
# So many trials teach the twin; the next ones it may foretell.
_TAUGHT = 2
# Where more hosts do not make it hold, nobody goes on for more than so many times as many.
_NO_MORE = 4


@dataclass(frozen=True)
class Capacity:
    """What one candidate would take to hold the load.

    Attributes:
        parameters: The candidate.
        instances: That one host has of it.
        gpus: That one host uses.
        trial: The trial that measured it; None where it is only predicted.
        beyond: What of it goes beyond all that was launched, as `8 instances (at most 4 launched)`; empty:
            nothing.
        rate: Requests a second that one host holds, 95 %; from 0 where it may not hold the limit at any rate.
        hosts: For the load, likely; `fewest` and `most` by the ends of `rate`.
        fewest: See `hosts`.
        most: See `hosts`; None where it may be that no number of them holds the limit.
        latency_ms: At the limit's percentile with so many hosts that share the load evenly, 95 %.
    """

    parameters: Assignment
    instances: int
    gpus: int
    trial: int | None
    beyond: str
    rate: Interval
    hosts: int
    fewest: int
    most: int | None
    latency_ms: Interval


def capacities(study: Study, rate: float, slo: SLO) -> tuple[Capacity, ...]:
    """What candidates would take to hold a rate of Poisson arrivals within a limit, the fewest hosts first.

    Hosts are taken to be alike, and to share the load evenly. Between candidates that need as many, the one with fewer
    instances comes first, and then the quicker one.

    Raises:
        JobError: the study tells too little, or is of a model whose scheduling the twin does not know; or `slo` does
            not have one limit.
    """
    if len(slo.limits) != 1:
        there = f"got {slo}" if slo.limits else "the study has no SLO to take it from"
        raise JobError(f"--slo: must be one limit, such as p99=20ms; {there}")
    foresight = _Foresight(study, slo)
    found = [each for candidate in foresight.candidates() if (each := foresight.capacity(candidate, rate))]
    return tuple(sorted(found, key=lambda each: (each.hosts, each.instances, each.latency_ms.value)))


class _Foresight:
    """The twin of a study, and its candidates."""

    def __init__(self, study: Study, slo: SLO) -> None:
        ((self._percentile, self._limit_ms),) = slo.limits
        model = study.identity.model
        if not study.trials:
            raise JobError(f"the study of {model!r} has no finished trial")
        self._space: SearchSpace = study.space
        if reason := why_not_simulated(self._space.effective.proto):
            raise JobError(f"{model}: cannot simulate this model's scheduler: {reason}")
        self._scheduling_map = SchedulingMap(self._space)
        self._trials = {key_of(self._space.recall(trial.parameters)): trial for trial in study.trials}
        worked = [(trial, each) for trial in study.trials if (each := self._known(trial))]
        told = [each for _, each in worked]
        if not any(level.executions for each in told for level in each.levels):
            raise JobError(f"{model}: the server reported no execution times, so nothing can be estimated")
        self._launched = [self._scheduling_map.of(trial.parameters)[0] for trial, _ in worked]
        self._unit = study.trials[0].curve[0].batch_size
        gpus = [point.gpu for trial in study.trials for point in trial.curve if point.gpu]
        self._gpus = max((len(usage.gpus) for usage in gpus), default=0)
        self._forecast = self._forecast_from(told, self._forecast_errors(told))

    def candidates(self) -> Sequence[Assignment]:
        """Those that were launched and worked, and of the others those that look best."""
        launched = [self._space.recall(trial.parameters) for trial in self._trials.values() if self._known(trial)]
        refusals = Refusals(self._space, tuple(self._trials.values()))
        untried = (each for each in self._space.assignments() if key_of(each) not in self._trials)
        others = [each for each in untried if refusals.refusal(each) is None]
        if not others:
            return launched
        curves = self._forecast.curves([self._scheduling_map.of(each) for each in others], _HIGHEST_LOAD)
        holds = curves.latency <= math.log(self._limit_ms)
        reached = np.where(holds, curves.throughput, -np.inf).max(axis=1)
        return [*launched, *(others[place] for place in np.argsort(-reached)[:_CLOSELY] if reached[place] > -np.inf)]

    def capacity(self, assignment: Assignment, rate: float) -> Capacity | None:
        """Of one candidate; None where it is expected to hold the limit at no rate."""
        scheduling, setting = self._scheduling_map.of(assignment)

        @cache
        def latency_ms(per_host: float) -> tuple[float, float]:
            """What is expected at a rate, and the standard deviation of its logarithm."""
            return self._forecast.latency_ms(scheduling, setting, _due_ms(per_host), keeps_up=_KEEPS_UP)

        highest = self._forecast.twin.predict(scheduling, setting, _HIGHEST_LOAD).throughput / self._unit
        likely, surely, perhaps = (self._within_limit(latency_ms, highest, at) for at in (0.0, Z95, -Z95))
        if likely is None:
            return None
        spread = self._forecast.throughput_deviation(scheduling, setting, likely, self._limit_ms)
        held = _interval(likely, surely, perhaps or likely, Z95 * spread)
        # The cores and the GPUs do no more than they can, however little is known of the rest.
        most = self._forecast.twin.most_per_s(scheduling, setting) / self._unit
        held = held.model_copy(update={"high": min(held.high, max(most, held.value))})
        hosts, fewest = math.ceil(rate / held.value), math.ceil(rate / held.high)
        # Less load can take longer, where batches then wait to be full.
        while (expected := latency_ms(rate / hosts))[0] > self._limit_ms and hosts < _NO_MORE * rate / likely:
            hosts += 1
        value, deviation = expected
        trial = self._trials.get(key_of(assignment))
        return Capacity(
            parameters=assignment,
            instances=scheduling.instances,
            gpus=self._gpus,
            trial=trial.number if trial else None,
            beyond="" if trial else self._beyond(scheduling),
            rate=held,
            hosts=hosts,
            fewest=fewest,
            most=max(hosts, math.ceil(rate / held.low)) if held.low else None,
            latency_ms=Interval.within_logs(value, Z95 * deviation),
        )

    def _within_limit(
        self, latency_ms: Callable[[float], tuple[float, float]], highest: float, sigmas: float
    ) -> float | None:
        """The highest rate within the limit, were latencies so many deviations above what is expected of them."""

        def holds(per_host: float) -> bool:
            expected, deviation = latency_ms(per_host)
            return expected * math.exp(sigmas * deviation) <= self._limit_ms

        low, high = _LOWEST * highest, highest
        if not holds(low):
            return None
        for _ in range(_HALVINGS):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low

    def _beyond(self, scheduling: Scheduling) -> str:
        told = []
        if scheduling.instances > (most := max(each.instances for each in self._launched)):
            told.append(f"{scheduling.instances} instances (at most {most} launched)")
        if scheduling.max_batch_size > (most := max(each.max_batch_size for each in self._launched)):
            told.append(f"batches of {scheduling.max_batch_size} (at most {most} launched)")
        return ", ".join(told)

    def _known(self, trial: TrialResult) -> ObservedTrial | None:
        return observed_trial(trial, self._percentile, self._scheduling_map.of(self._space.recall(trial.parameters))[1])

    def _forecast_errors(self, told: Sequence[ObservedTrial]) -> ForecastErrors:
        """How wrong the twin would have been about each trial, had it known only those before."""
        forecast_errors = ForecastErrors()
        forecast_errors.learn(told, _TAUGHT, lambda number: self._forecast_from(told[:number], forecast_errors))
        return forecast_errors

    def _forecast_from(self, told: Sequence[ObservedTrial], forecast_errors: ForecastErrors) -> Forecast:
        return Forecast(told, self._percentile, self._unit, forecast_errors, self._space.machine.cpus)


def _interval(likely: float, surely: float | None, perhaps: float, half_width: float) -> Interval:
    """A rate by where the latency's interval meets the limit, and by how well throughput is known; both independent.

    Args:
        likely: What is expected.
        surely: The same at the upper end of the latency's interval; None: no rate holds the limit there.
        perhaps: The same at its lower end.
        half_width: Of throughput's interval, as a logarithm.
    """
    below = math.hypot(math.log(likely / surely), half_width) if surely else math.inf
    above = math.hypot(math.log(perhaps / likely), half_width)
    return Interval.within_logs(likely, below, above)


def _due_ms(rate: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Poisson arrivals, the same for all but for their rate."""
    return np.cumsum(np.random.default_rng(0).exponential(1e3 / rate, _ARRIVALS))
