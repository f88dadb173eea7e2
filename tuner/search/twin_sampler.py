"""Proposes the candidate of the largest expected gain, as predicted by the simulator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.recommend.front import pareto_front, reference_latency_ms, usable_points
from tuner.search.gains import Gains, dominated, gains, within_limit
from tuner.search.goal import Goal
from tuner.search.samplers import ALL_SEEN, LISTABLE, NoMore, RandomSampler, Sampler, TrialHistory
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.forecast import Forecast, ForecastErrors
from tuner.search.twin.observed_trial import ObservedTrial, observed_trial
from tuner.search.twin.scheduling import Scheduling, why_not_simulated
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
# The simulator may end the search only after this many of its predictions were compared with trials.
_TESTED_AFTER = 2
# The simulator is switched off when its median error exceeds this share. With fewer trials, a single disturbance of the
# machine could switch it off.
_MOST_ERROR, _LEAST_TRIALS = 0.5, 4
# Candidates drawn from a space that is too large to list.
_LARGE_SPACE_DRAWS = 2000


class TwinSampler:
    """Proposes calibration candidates first, then the candidate of the largest expected gain, refitting each time.

    `other` proposes all candidates if the simulator cannot model the scheduler, or its errors are too large. Otherwise
    it proposes, every second time, the values of the parameters that are not modelled.

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
        self._fitted: tuple[int, Forecast] | None = None
        self._off_reason = why_not_simulated(space.effective.proto)
        if self._off_reason:
            note(f"cannot simulate this model's scheduler: {self._off_reason}; using the tpe sampler")

    def propose(self, history: TrialHistory, seen: Collection[Assignment]) -> Assignment | NoMore:
        """See `Sampler`."""
        trials = history.trials
        if not self._off_reason and not any(k and _has_executions(k) for k in map(self._observed, trials)):
            self._switch_off("the server reports no execution times")
        if self._off_reason:
            return self._other.propose(history, seen)
        for assignment in calibrations(self._space):
            if assignment not in seen:
                return assignment
        self._learn(trials)
        if len(self._forecast_errors.throughput) >= _LEAST_TRIALS and self._has_large_errors:
            self._switch_off(f"its median error of throughput is {self._forecast_errors.typical:.0%}")
            return self._other.propose(history, seen)
        explored = self._explored(history, seen)
        return self._most_promising(trials, seen, explored)

    @property
    def _is_trusted(self) -> bool:
        """Whether the simulator may end the search."""
        return len(self._forecast_errors.throughput) >= _TESTED_AFTER and not self._has_large_errors

    @property
    def _has_large_errors(self) -> bool:
        return self._forecast_errors.typical > _MOST_ERROR

    def _switch_off(self, reason: str) -> None:
        self._off_reason = reason
        self._note(f"simulator off: {reason}; using the tpe sampler")

    def _observed(self, trial: TrialResult) -> ObservedTrial | None:
        if trial.number not in self._read:
            _, setting = self._scheduling_map.of(trial.parameters)
            self._read[trial.number] = observed_trial(trial, self._goal.slo.percentile, setting)
        return self._read[trial.number]

    def _learn(self, trials: Sequence[TrialResult]) -> None:
        """Compare each trial after the calibrations with its prediction from the trials before it."""
        first = 1 + len(list(calibrations(self._space)))
        observed = [self._observed(trial) for trial in trials]
        self._forecast_errors.learn(observed, first, lambda number: self._forecast(trials[:number]))

    def _forecast(self, trials: Sequence[TrialResult]) -> Forecast:
        # The forecast that proposed a trial is reused to compute its error.
        if self._fitted is None or self._fitted[0] != len(trials):
            observed = [trial for trial in map(self._observed, trials) if trial]
            goal, cores = self._goal, self._space.machine.cpus
            forecast = Forecast(observed, goal.slo.percentile, goal.batch_size, self._forecast_errors, cores)
            self._fitted = len(trials), forecast
        return self._fitted[1]

    def _explored(self, history: TrialHistory, seen: Collection[Assignment]) -> Assignment | None:
        """Every second time, a proposal of the other sampler, used for the parameters that are not modelled."""
        if not self._scheduling_map.unknown or len(history.trials) % 2:
            return None
        proposed = self._other.propose(history, seen)
        return None if isinstance(proposed, NoMore) else proposed

    def _most_promising(
        self, trials: Sequence[TrialResult], seen: Collection[Assignment], explored: Assignment | None
    ) -> Assignment | NoMore:
        tried = {key_of(self._space.recall(trial.parameters)) for trial in trials if self._observed(trial)}
        refused = {key_of(assignment) for assignment in seen} - tried
        candidates = [a for a in self._candidates if (key := key_of(a)) in tried or key not in refused]
        candidates = [a for a in candidates if key_of(a) in tried or not self._is_too_large(a, trials)]
        schedulings = [self._scheduling_map.of(candidate) for candidate in candidates]
        measured = np.array([key_of(candidate) in tried for candidate in candidates])
        if measured.all():
            return ALL_SEEN
        expected = self._gains(trials, schedulings, measured)
        score = np.where(measured, -1.0, expected.expected)
        if explored is not None:
            _, setting = self._scheduling_map.of(explored)
            score = np.where([s == setting for _, s in schedulings], score, -1.0)
            if score.max() < 0:
                return explored
        elif self._is_trusted and (
            expected.likely[~measured].max() < _LEAST_PROBABILITY or score.max() < _LEAST_EXPECTED
        ):
            return NoMore(
                f"the simulator expects no candidate to gain more than {WORTHWHILE:.0%} "
                f"(highest probability: {expected.likely[~measured].max():.0%})"
            )
        return candidates[int(np.argmax(score))]

    def _gains(
        self, trials: Sequence[TrialResult], schedulings: Sequence[tuple[Scheduling, int]], measured: NDArray[np.bool_]
    ) -> Gains:
        slo, percentile = self._goal.slo, self._goal.slo.percentile
        curves = self._forecast(trials).curves(schedulings, self._goal.max_concurrency)
        limit_ms = slo.limit_ms(percentile)
        if limit_ms is not None:
            return gains(within_limit(curves, limit_ms, self._seed), measured, WORTHWHILE)
        reference_ms = reference_latency_ms(trials[0], percentile, None)
        front = pareto_front(usable_points(trials, (), self._goal.max_gpu_memory), percentile)
        points = np.array([(point.latency_ms(percentile), point.point.throughput.value) for point in front])
        return gains(dominated(curves, reference_ms, points, self._seed), measured, WORTHWHILE)

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

    @cached_property
    def _candidates(self) -> tuple[Assignment, ...]:
        """All assignments; for a large space, a random sample."""
        if self._space.size() <= LISTABLE:
            return tuple(self._space.assignments())
        draws, none = RandomSampler(self._space, self._seed), _Nothing()
        some: list[Assignment] = [self._space.baseline, *calibrations(self._space)]
        for _ in range(_LARGE_SPACE_DRAWS):
            drawn = draws.propose(none, ())
            if not isinstance(drawn, NoMore):
                some.append(drawn)
        return tuple({key_of(assignment): assignment for assignment in some}.values())


class _Nothing:
    """A history without trials."""

    trials: tuple[TrialResult, ...] = ()

    def optuna_trials(self) -> tuple[()]:
        return ()


def _has_executions(trial: ObservedTrial) -> bool:
    return any(level.executions for level in trial.levels)


def calibrations(space: SearchSpace) -> Iterator[Assignment]:
    """The candidates to launch first for the simulator.

    The first has the largest batches on the fewest instances: under rising loads, batches of all sizes run undisturbed.
    The second has twice the instances, which shows how instances slow each other down. It launches quickly, and fits
    into memory more often than many instances.
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
