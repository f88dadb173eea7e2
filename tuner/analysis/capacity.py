"""Estimates the hosts that a load needs, from a finished study with the simulator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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
from tuner.search.twin.twin import Twin, Variation
from tuner.space.candidate import Assignment, key_of
from tuner.space.space import SearchSpace
from tuner.stats.blocks import Z95
from tuner.study.study import Study

# The search for a rate: simulated arrivals, the lowest rate as a share of the highest, and halvings (to within 1 %).
_ARRIVALS, _LOWEST, _HALVINGS = 4_000, 1 / 1_024, 10
# The most unlaunched candidates to simulate in an open loop; the best ones in a closed loop are taken.
_MOST_UNLAUNCHED = 24
# The most index combinations of a space whose candidates are all simulated.
_LISTED = 10_000
# The highest concurrency of the simulated closed loop.
_HIGHEST_LOAD = 1_024
# A server keeps up if it answers at least this share of the offered requests.
_KEEPS_UP = 0.97
# The number of first trials whose predictions do not count as errors of the simulator.
_FIRST_PREDICTED = 2
# The most hosts to try, as a factor of the estimate, if lower rates per host do not hold the limit.
_MOST_FACTOR = 4


@dataclass(frozen=True)
class Capacity:
    """The capacity that one candidate needs for the load.

    Attributes:
        parameters: The candidate.
        instances: Model instances on one host.
        gpus: GPUs in use on one host.
        trial: The number of the trial that measured it; None: it is simulated only.
        beyond: Parameters beyond the launched range, such as `8 instances (at most 4 launched)`; empty: none.
        rate: Rate that one host holds, in requests/s, 95 %; the lower end is 0 if possibly no rate holds the limit.
        hosts: Expected number of hosts.
        fewest: Number of hosts at the upper end of `rate`.
        most: Number of hosts at the lower end of `rate`; None: possibly no number of hosts holds the limit.
        latency_ms: Latency at the limit's percentile when `hosts` share the load evenly, in ms, 95 %.
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
    """The capacities that candidates need for a rate of Poisson arrivals within a limit, in ascending order of hosts.

    Hosts are assumed to be equal and to share the load evenly. Ties are ordered by instances, then by latency.

    Args:
        study: The study of the model.
        rate: The rate, in requests/s.
        slo: One latency limit.

    Raises:
        JobError: the study has too few measurements, the simulator cannot model the scheduler, or `slo` does not have
            exactly one limit.
    """
    if len(slo.limits) != 1:
        there = f"got {slo}" if slo.limits else "the study has no SLO to take it from"
        raise JobError(f"--slo: must be one limit, such as p99=20ms; {there}")
    estimator = _Estimator(study, slo)
    estimates = (estimator.capacity(candidate, rate) for candidate in estimator.candidates())
    return tuple(sorted(filter(None, estimates), key=lambda c: (c.hosts, c.instances, c.latency_ms.value)))


class _Estimator:
    """Estimates the capacities of the candidates of a study."""

    def __init__(self, study: Study, slo: SLO) -> None:
        ((_, self._percentile, self._limit_ms),) = slo.limits
        model = study.identity.model
        if not study.trials:
            raise JobError(f"the study of {model!r} has no finished trial")
        self._space: SearchSpace = study.space
        if study.identity.rate is not None:
            raise JobError(f"{model} was tuned at a fixed rate; estimate needs a run without --minimize")
        if reason := why_not_simulated(self._space.effective.proto):
            raise JobError(f"{model}: cannot simulate this model's scheduler: {reason}")
        self._scheduling_map = SchedulingMap(self._space)
        self._trials = {key_of(self._space.recall(trial.parameters)): trial for trial in study.trials}
        observed = [(result, trial) for result in study.trials if (trial := self._observed(result))]
        trials = [trial for _, trial in observed]
        if not any(level.executions for trial in trials for level in trial.levels):
            raise JobError(f"{model}: the server reported no execution times, so nothing can be estimated")
        self._launched = [self._scheduling_map.of(result.parameters)[0] for result, _ in observed]
        self._unit = study.trials[0].curve[0].batch_size
        gpus = [point.gpu for trial in study.trials for point in trial.curve if point.gpu]
        self._gpus = max((len(usage.gpus) for usage in gpus), default=0)
        self._forecast = self._forecast_from(trials, self._past_errors(trials))

    def candidates(self) -> Sequence[Assignment]:
        """The measured candidates, and the most promising ones without a launch."""
        launched = [self._space.recall(trial.parameters) for trial in self._trials.values() if self._observed(trial)]
        refusals = Refusals(self._space, tuple(self._trials.values()))
        untried = (candidate for candidate in self._simulated() if key_of(candidate) not in self._trials)
        others = [candidate for candidate in untried if refusals.refusal(candidate) is None]
        if not others:
            return launched
        schedulings = [self._scheduling_map.of(candidate) for candidate in others]
        reached = self._forecast.reached(schedulings, self._limit_ms, _HIGHEST_LOAD)
        best = np.argsort(-reached)[:_MOST_UNLAUNCHED]
        return [*launched, *(others[index] for index in best if reached[index] > -np.inf)]

    def _simulated(self) -> Iterator[Assignment]:
        """The candidates to simulate: all; of a large space those with launched values of what is not simulated."""
        if self._space.size() <= _LISTED:
            yield from self._space.assignments()
            return
        launched = (dict(key) for key in self._trials)
        unknown = self._scheduling_map.unknown
        settings = ({p.name: values.get(p.name, p.base) for p in unknown} for values in launched)
        for setting in {key_of(setting): setting for setting in settings}.values():
            yield from self._space.assignments(setting)

    def capacity(self, assignment: Assignment, rate: float) -> Capacity | None:
        """The capacity of one candidate; None if no rate is expected to hold the limit."""
        scheduling, setting = self._scheduling_map.of(assignment)

        @cache
        def latency_ms(per_host: float) -> tuple[float, float]:
            """The expected latency at a rate, and the standard deviation of its logarithm."""
            return self._forecast.latency_ms(scheduling, setting, _due_ms(per_host), keeps_up=_KEEPS_UP)

        highest = self._forecast.twin.predict(scheduling, setting, _HIGHEST_LOAD).throughput / self._unit
        likely, lower, upper = (self._within_limit(latency_ms, highest, at) for at in (0.0, Z95, -Z95))
        if likely is None:
            return None
        spread = self._forecast.throughput_deviation(scheduling, setting, likely, self._limit_ms)
        held = _interval(likely, lower, upper or likely, Z95 * spread)
        # The capacity of cores and GPUs bounds the upper end.
        most = self._forecast.twin.most_per_s(scheduling, setting) / self._unit
        held = held.model_copy(update={"high": min(held.high, max(most, held.value))})
        hosts, fewest = math.ceil(rate / held.value), math.ceil(rate / held.high)
        # Latency may rise at lower load, where batches wait to be filled.
        while (expected := latency_ms(rate / hosts))[0] > self._limit_ms and hosts < _MOST_FACTOR * rate / likely:
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
        """The highest rate within the limit if latencies are `sigmas` deviations above the expected ones."""

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
        parts = []
        if scheduling.instances > (most := max(launched.instances for launched in self._launched)):
            parts.append(f"{scheduling.instances} instances (at most {most} launched)")
        if scheduling.max_batch_size > (most := max(launched.max_batch_size for launched in self._launched)):
            parts.append(f"batches of {scheduling.max_batch_size} (at most {most} launched)")
        return ", ".join(parts)

    def _observed(self, trial: TrialResult) -> ObservedTrial | None:
        return observed_trial(trial, self._percentile, self._scheduling_map.of(self._space.recall(trial.parameters))[1])

    def _past_errors(self, trials: Sequence[ObservedTrial]) -> ForecastErrors:
        """The errors of predicting each trial from the trials before it."""
        errors = ForecastErrors()

        @cache
        def variation(fitted: int) -> Variation:
            return Twin(trials[:fitted], self._percentile, self._unit, self._space.machine.cpus).variation

        def forecast(number: int) -> Forecast:
            # The variation of execution times is fitted to 2, 8 and 32 trials.
            return self._forecast_from(trials[:number], errors, variation(2 * 4 ** int(math.log2(number / 2) / 2)))

        errors.learn(trials, _FIRST_PREDICTED, forecast)
        return errors

    def _forecast_from(
        self, trials: Sequence[ObservedTrial], errors: ForecastErrors, variation: Variation | None = None
    ) -> Forecast:
        return Forecast(trials, self._percentile, self._unit, errors, self._space.machine.cpus, variation=variation)


def _interval(likely: float, lower: float | None, upper: float, half_width: float) -> Interval:
    """The interval of a rate, from the independent uncertainties of latency and of throughput.

    Args:
        likely: The expected rate.
        lower: The rate by the upper end of the latency's interval; None: no rate holds the limit there.
        upper: The rate by the lower end of the latency's interval.
        half_width: Half width of the interval of throughput, as a logarithm.
    """
    below = math.hypot(math.log(likely / lower), half_width) if lower else math.inf
    above = math.hypot(math.log(upper / likely), half_width)
    return Interval.within_logs(likely, below, above)


def _due_ms(rate: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Poisson arrival times in ms, from the same random numbers for every rate."""
    return np.cumsum(np.random.default_rng(0).exponential(1e3 / rate, _ARRIVALS))
