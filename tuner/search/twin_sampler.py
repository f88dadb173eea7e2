"""Proposes the candidate of the largest expected gain, as predicted by the simulator and by learnt factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.recommend.front import pareto_front, reference_latency_ms, usable_points
from tuner.recommend.host_effects import NO_HOSTS, HostEffects
from tuner.search.candidate_pool import CandidatePool, distinct
from tuner.search.gains import Values, any_holds, at_rate, dominated, gains, within_limit
from tuner.search.goal import Goal
from tuner.search.samplers import ALL_SEEN, NoMore, Pending, Sampler, TrialHistory
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.effects import Effects
from tuner.search.twin.forecast import ForecastErrors
from tuner.search.twin.joint_forecast import Candidate, JointForecast
from tuner.search.twin.observed_trial import ObservedTrial, observed_trial, on_reference
from tuner.search.twin.scheduling import why_not_simulated
from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment, key_of
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import LadderValue

WORTHWHILE = 0.01
"""The least gain, as a share, that is worth a launch."""
# Failures that also occur with more instances and larger batches. A crash is not among them, as it may be an accident.
_SIZE_CAUSES = {Cause.OUT_OF_MEMORY, Cause.TIMED_OUT}
# The search ends when each candidate's probability of a worthwhile gain, or its expected gain, is below these.
_LEAST_PROBABILITY, _LEAST_EXPECTED = 0.1, 0.003
# The simulator may end the search only after this many trials beside the calibration.
_TESTED_AFTER = 2
# The simulator is switched off when its median error exceeds this share. With fewer trials, a single disturbance of the
# machine could switch it off.
_MOST_ERROR, _LEAST_TRIALS = 0.5, 4
# Of a large space: launched candidates whose neighbourhood is searched, and steps uphill from so many of the best.
_GOOD, _CLIMBS, _CLIMBERS = 4, 3, 4
# While nothing holds the limit: the weight of a candidate for each doubling of its instances. More of them cannot lower
# the latency of low loads, but may raise it.
_DOUBLED = 0.5
# The most unknown parameters that change at once from a good candidate. More changes hide the gains of single ones.
_MOST_CHANGES = 2
# The chance of a value to work after a failure that it alone may have caused.
_BLAMED = 0.2
# At a fixed rate: simulated arrivals, and the share of them that must be answered in time.
_ARRIVALS, _KEEPS_UP = 2_000, 0.97
# One load tells less of the scheduler than a curve: the simulator may be off by more, and every third candidate is the
# other sampler's.
_MOST_LATENCY_ERROR, _OTHER_EVERY = 1.0, 3
# Draws for each sample of the forecast.
_DRAWS = 8


class TwinSampler:
    """Proposes a calibration candidate first, then the candidate of the largest expected gain, refitting each time.

    The effects of parameters that the simulator does not model are learnt from trials, so that all parameters are
    chosen together. `other` proposes all candidates if the simulator cannot model the scheduler, or its errors are too
    large.

    Args:
        space: The search space.
        seed: The seed of the draws.
        goal: The goal of the search.
        other: The sampler to use where the simulator cannot propose.
        note: Takes a message when the simulator is switched off.
    """

    def __init__(self, space: SearchSpace, seed: int, goal: Goal, other: Sampler, note: Callable[[str], None]) -> None:
        self._space, self._seed, self._goal, self._other, self._note = space, seed, goal, other, note
        self._scheduling_map = SchedulingMap(space)
        self._forecast_errors = ForecastErrors()
        # The measurements by trial number, and the last forecast with the number of trials it was fitted to.
        self._read: dict[int, ObservedTrial | None] = {}
        self._hosts = NO_HOSTS
        self._fitted: tuple[int, JointForecast] | None = None
        self._effects = Effects(self._scheduling_map.unknown)
        self._pool = CandidatePool(space, seed, self._scheduling_map.unknown)
        self._calibration = next(calibrations(space), None)
        rate = goal.objective.rate
        self._due_ms = None if rate is None else _due_ms(rate)
        self._off_reason = why_not_simulated(space.effective.proto)
        if self._off_reason:
            note(f"cannot simulate this model's scheduler: {self._off_reason}; using the tpe sampler")

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """See `Sampler`. Pending candidates count as measured, with the results that are expected (kriging believer).

        The simulator learns its errors from finished trials alone, without the effects of the hosts that measured them.
        """
        self._learn_hosts(history.host_effects)
        trials = history.trials
        observed = [known for known in map(self._observed, trials) if known]
        # At a fixed rate, nothing is known until a candidate keeps up.
        may_be_told = self._due_ms is not None and not observed
        if not self._off_reason and not may_be_told and not any(map(_has_executions, observed)):
            self._switch_off("the server reports no execution times")
        if self._off_reason:
            return self._other.propose(history, seen, pending)
        if calibration := self._calibration_now(seen, pending):
            return calibration
        if may_be_told:
            return self._other.propose(history, seen, pending)
        later = self._learn(trials)
        if len(self._forecast_errors.throughput) >= _LEAST_TRIALS and self._has_large_errors:
            what = "throughput" if self._due_ms is None else "latency"
            self._switch_off(f"its median error of {what} is {self._typical_error:.0%}")
            return self._other.propose(history, seen, pending)
        if self._due_ms is not None and (len(trials) + len(pending)) % _OTHER_EVERY == 0:
            return self._other.propose(history, seen, pending)
        may_end = later >= _TESTED_AFTER and not self._has_large_errors
        return self._most_promising(trials, seen, pending, may_end=may_end)

    def _calibration_now(self, seen: Collection[Assignment], pending: Sequence[Pending]) -> Assignment | None:
        """The calibration, if it is new; while it is pending, the same with more instances."""
        if self._calibration and self._calibration not in seen:
            return self._calibration
        if self._calibration in [self._space.recall(trial.assignment) for trial in pending]:
            # Before it has told anything, the baseline's forecast is a guess.
            return next((each for each in instance_counts(self._space) if each not in seen), None)
        return None

    @property
    def _has_large_errors(self) -> bool:
        return self._typical_error > (_MOST_ERROR if self._due_ms is None else _MOST_LATENCY_ERROR)

    @property
    def _typical_error(self) -> float:
        """The median error as a share: of throughput, or of latency at a fixed rate, which throughput follows."""
        errors = self._forecast_errors
        return errors.typical if self._due_ms is None else errors.typical_of_latency

    def _switch_off(self, reason: str) -> None:
        self._off_reason = reason
        self._note(f"simulator off: {reason}; using the tpe sampler")

    def _learn_hosts(self, hosts: HostEffects) -> None:
        """Take the effects of the hosts off all trials; what was learnt with other effects is learnt again."""
        if hosts != self._hosts:
            self._hosts, self._fitted, self._forecast_errors = hosts, None, ForecastErrors()
            self._read.clear()

    def _observed(self, trial: TrialResult) -> ObservedTrial | None:
        if trial.number not in self._read:
            _, setting = self._scheduling_map.of(trial.parameters)
            at_rate = self._due_ms is not None
            self._read[trial.number] = observed_trial(
                trial, self._goal.percentile, setting, at_rate=at_rate, hosts=self._hosts
            )
        return self._read[trial.number]

    def _learn(self, trials: Sequence[TrialResult]) -> int:
        """Compare each trial after the first ones with its prediction from the trials that had ended before it.

        Returns:
            The number of measured trials after the first ones, without a calibration that ended late.
        """
        first = 1 + (self._calibration is not None)

        def is_test(number: int) -> bool:
            trial = trials[number]
            return number >= first and not (trial.beside and self._space.recall(trial.parameters) == self._calibration)

        for number in range(self._forecast_errors.seen, len(trials)):
            observed = self._observed(trials[number])
            # The simulator is not to blame for effects that it does not model.
            if is_test(number) and observed and observed.setting == 0:
                throughput, latency = self._forecast(trials[:number]).errors(observed, trials[number].parameters)
                self._forecast_errors.throughput.append(throughput)
                self._forecast_errors.latency.append(latency)
            self._forecast_errors.seen = number + 1
        return sum(is_test(number) and self._observed(trial) is not None for number, trial in enumerate(trials))

    def _forecast(self, trials: Sequence[TrialResult]) -> JointForecast:
        # The forecast that proposed a trial is reused to compute its error.
        if self._fitted is None or self._fitted[0] != len(trials):
            observed = [
                (read, self._space.recall(trial.parameters)) for trial in trials if (read := self._observed(trial))
            ]
            goal, cores, seed = self._goal, self._space.machine.cpus, self._seed + len(trials)
            forecast = JointForecast(
                observed,
                self._effects,
                goal.percentile,
                goal.batch_size,
                cores=cores,
                seed=seed,
                due_ms=self._due_ms,
            )
            self._fitted = len(trials), forecast
        return self._fitted[1]

    def _most_promising(
        self,
        trials: Sequence[TrialResult],
        seen: Collection[Assignment],
        pending: Sequence[Pending],
        *,
        may_end: bool,
    ) -> Assignment | NoMore:
        launched = distinct(self._space.recall(trial.parameters) for trial in trials if self._observed(trial))
        tried = {key_of(assignment) for assignment in launched}
        under_way = distinct(self._space.recall(trial.assignment) for trial in pending)
        believed = [assignment for assignment in under_way if key_of(assignment) not in tried]
        forecast = copy(self._forecast(trials))
        forecast.believe(self._candidates(believed), self._highest)
        points = self._points(trials, believed, forecast)

        def valued(assignments: Sequence[Assignment]) -> Values:
            return self._values(forecast, trials, assignments, points)

        refused = {key_of(assignment) for assignment in [*seen, *believed]} - tried
        known = [*launched, *believed]
        begun = len(known)
        values = valued(known)
        best_first = [launched[place] for place in np.argsort(-values[: len(launched)].mean(axis=1))]
        good = distinct([*best_first[:_GOOD], *calibrations(self._space), self._space.baseline])

        start = self._effects.places(good)

        def new(assignments: Iterable[Assignment]) -> list[Assignment]:
            no_more = refused.union(map(key_of, known))
            those = [each for each in distinct(assignments) if key_of(each) not in no_more]
            changes = self._effects.changes(self._effects.places(those)[:, None], start[None]).min(axis=1)
            return [
                each
                for each, count in zip(those, changes, strict=True)
                if count <= _MOST_CHANGES and not self._is_too_large(each, trials)
            ]

        others = new(self._pool.around(good, len(trials) + len(pending)))
        for _ in range(1 if self._pool.is_whole else _CLIMBS):
            if not others:
                break
            known, values = [*known, *others], np.concatenate([values, valued(others)])
            measured = np.arange(len(known)) < begun
            expected = gains(values, measured, WORTHWHILE)
            chances = self._chances(known, trials)
            weights = chances if any_holds(values[measured]) else chances * self._few_instances(known)
            score = np.where(measured, -1.0, expected.clear * weights)
            best = np.argsort(-score)[:_CLIMBERS]
            others = new(other for place in best for other in self._pool.neighbours(known[place]))
        if len(known) == begun:
            return ALL_SEEN
        # While no candidate holds the limit, the search goes on.
        most = (expected.expected * chances)[~measured].max()
        unlikely = expected.likely[~measured].max() < _LEAST_PROBABILITY or most < _LEAST_EXPECTED
        if may_end and unlikely and any_holds(values[: len(launched)]):
            untried = self._has_untried(known, trials)
            if not untried.any():
                return NoMore(
                    f"the simulator expects no candidate to gain more than {WORTHWHILE:.0%} "
                    f"(highest probability: {expected.likely[~measured].max():.0%})"
                )
            score = np.where(untried, score, -1.0)
        return known[int(np.argmax(score))]

    def _chances(self, candidates: Sequence[Assignment], trials: Sequence[TrialResult]) -> NDArray[np.float64]:
        """The probability of each candidate that its values work, by those that were in failed trials only."""
        blame = np.zeros((len(self._effects), max((len(p.ladder) for p in self._scheduling_map.unknown), default=0)))
        columns = np.arange(len(self._effects))
        worked = np.zeros_like(blame, bool)
        places = self._effects.places([self._space.baseline, *(self._space.recall(t.parameters) for t in trials)])
        worked[columns, places[0]] = True
        for place, trial in zip(places[1:], trials, strict=True):
            if self._observed(trial):
                worked[columns, place] = True
        for place, trial in zip(places[1:], trials, strict=True):
            suspects = ~worked[columns, place]
            if trial.failure is not None and suspects.any():
                blame[columns[suspects], place[suspects]] += 1 / suspects.sum()
        chances: NDArray[np.float64] = _BLAMED ** blame[columns, self._effects.places(candidates)].sum(axis=1)
        return chances

    def _few_instances(self, candidates: Sequence[Assignment]) -> NDArray[np.float64]:
        """The weight of each candidate by its number of instances."""
        instances = [self._scheduling_map.of(each)[0].instances for each in candidates]
        weights: NDArray[np.float64] = _DOUBLED ** np.log2(instances)
        return weights

    def _has_untried(self, candidates: Sequence[Assignment], trials: Sequence[TrialResult]) -> NDArray[np.bool_]:
        """Whether each candidate changes a parameter that the simulator does not model and no trial changed."""
        own = self._space.indices(self._space.baseline)
        names = [parameter.name for parameter in self._scheduling_map.unknown]

        def changed(assignment: Assignment) -> set[str]:
            indices = self._space.indices(assignment)
            return {name for name in names if indices[name] != own[name]}

        tried = set[str]().union(*(changed(self._space.recall(trial.parameters)) for trial in trials))
        return np.array([bool(changed(candidate) - tried) for candidate in candidates])

    @property
    def _highest(self) -> int:
        """The highest load of predicted curves."""
        return self._goal.max_concurrency if self._due_ms is None else 1

    def _candidates(self, assignments: Iterable[Assignment]) -> list[Candidate]:
        return [(self._scheduling_map.of(assignment)[0], assignment) for assignment in assignments]

    def _points(
        self, trials: Sequence[TrialResult], believed: Sequence[Assignment], forecast: JointForecast
    ) -> NDArray[np.float64]:
        """(n, 2) latency in ms and throughput of the front, and of believed curves; empty where values need none."""
        percentile = self._goal.percentile
        if self._due_ms is not None or self._goal.slo.limit_ms(percentile) is not None:
            return np.empty((0, 2))
        corrected = [on_reference(trial, self._hosts) for trial in trials]
        front = pareto_front(usable_points(corrected, (), self._goal.max_gpu_memory), percentile)
        points = [(point.latency_ms(percentile), point.point.throughput.value) for point in front]
        if not believed:
            return np.array(points)
        samples = forecast.curves(self._candidates(believed), self._highest)
        curves = [np.mean([getattr(each, name) for each in samples], axis=0) for name in ("latency", "throughput")]
        expected = np.exp(np.stack(curves, axis=-1)).reshape(-1, 2)
        return np.concatenate([np.array(points).reshape(-1, 2), expected[np.isfinite(expected).all(axis=1)]])

    def _values(
        self,
        forecast: JointForecast,
        trials: Sequence[TrialResult],
        assignments: Sequence[Assignment],
        points: NDArray[np.float64],
    ) -> Values:
        """The value of candidates in each draw, over all samples of the forecast; see `_points`."""
        slo, percentile, rate = self._goal.slo, self._goal.percentile, self._goal.objective.rate
        samples = forecast.curves(self._candidates(assignments), self._highest)
        limit_ms = slo.limit_ms(percentile)
        seeds = range(self._seed, self._seed + len(samples))
        if rate is not None:
            least, most_ms = _KEEPS_UP * rate * self._goal.batch_size, limit_ms or math.inf
            return np.hstack([at_rate(c, least, most_ms, s, _DRAWS) for c, s in zip(samples, seeds, strict=True)])
        if limit_ms is not None:
            return np.hstack([within_limit(c, limit_ms, s, _DRAWS) for c, s in zip(samples, seeds, strict=True)])
        reference_ms = reference_latency_ms(trials[0], percentile, None)
        return np.hstack([dominated(c, reference_ms, points, s, _DRAWS) for c, s in zip(samples, seeds, strict=True)])

    def _is_too_large(self, assignment: Assignment, trials: Sequence[TrialResult]) -> bool:
        """Whether a candidate that was no larger ran out of memory or did not start in time."""
        scheduling, _ = self._scheduling_map.of(assignment)
        for trial in trials:
            if trial.failure is not None and trial.failure.cause in _SIZE_CAUSES:
                failed, _ = self._scheduling_map.of(trial.parameters)
                if (
                    scheduling.instances >= failed.instances
                    and scheduling.max_batch_size >= failed.max_batch_size
                    and scheduling.dynamic_batching >= failed.dynamic_batching
                ):
                    return True
        return False


def _due_ms(rate: float) -> NDArray[np.float64]:
    """Poisson arrivals at a rate in requests/s, in ms, the same for every candidate."""
    return np.cumsum(np.random.default_rng(0).exponential(1e3 / rate, _ARRIVALS))


def _has_executions(trial: ObservedTrial) -> bool:
    return any(level.executions for level in trial.levels)


def instance_counts(space: SearchSpace) -> Iterator[Assignment]:
    """The calibration with more instances, each time twice as many, or the next number there is.

    The best candidate often is near one of them, and the simulator learns how instances slow each other down.
    """
    first = next(calibrations(space), space.baseline)
    for parameter in space.parameters:
        if parameter.field == INSTANCE_COUNT:
            counts = sorted(value for value in parameter.ladder if is_number(value))
            least = min(counts, default=1)
            while least < max(counts, default=1):
                least = min(count for count in counts if count >= min(2 * least, max(counts)))
                yield space.normalize({**first, parameter.name: least})


def calibrations(space: SearchSpace) -> Iterator[Assignment]:
    """The candidates that teach the simulator most, of which the first is launched in any case.

    It has the largest batches on the fewest instances: under rising loads, batches of all sizes run undisturbed. The
    second has twice the instances, which shows how instances slow each other down. It launches quickly, and fits into
    memory more often than many instances.
    """
    batching = space.switched_on(DYNAMIC_BATCHING)
    fewest: dict[str, LadderValue] = {}
    twice: dict[str, LadderValue] = {}
    for parameter in space.parameters:
        numbers = [value for value in parameter.ladder if is_number(value)]
        if parameter.field == MAX_BATCH_SIZE and numbers:
            batching[parameter.name] = max(numbers)
        if parameter.field == INSTANCE_COUNT and numbers:
            fewest[parameter.name] = min(numbers)
            twice[parameter.name] = parameter.nearest(2 * min(numbers)) or min(numbers)
    assignments = [space.normalize({**batching, **instances}) for instances in (fewest, twice)]
    for number, assignment in enumerate(assignments):
        if assignment != space.baseline and assignment not in assignments[:number]:
            yield assignment
