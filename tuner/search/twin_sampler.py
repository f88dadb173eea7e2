"""Proposes what the twin expects most of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.recommend.front import pareto_front, reference_latency_ms, usable_points
from tuner.search.calibration import calibrations
from tuner.search.gains import Gains, dominated, gains, within_limit
from tuner.search.goal import Goal
from tuner.search.samplers import ALL_SEEN, LISTABLE, NoMore, RandomSampler, Sampler, TrialHistory
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.forecast import Forecast, ForecastErrors
from tuner.search.twin.observed_trial import ObservedTrial, observed_trial
from tuner.search.twin.scheduling import Scheduling, why_not_simulated
from tuner.space.candidate import Assignment, key_of
from tuner.space.space import SearchSpace

WORTHWHILE = 0.01
"""What a candidate must gain to be worth a launch, as a share."""
# What so fails, does so with more instances and larger batches, too; a crash may be an accident.
_OF_SIZE = {Cause.OUT_OF_MEMORY, Cause.TIMED_OUT}
# Nobody looks further when everybody gains that much with less than this probability, or by far less in the mean.
_CHANCE, _HARDLY = 0.1, 0.003
# Before it was held against so many trials, nobody knows how good the twin is.
_TESTED_AFTER = 2
# When it is off by more in the median, it is of no use. Of fewer trials, one bad moment of the machine would decide,
# which spoils what is expected of the next one, too.
_TOO_FAR_OFF, _IN_TRIALS = 0.5, 4
_LARGE_SPACE_DRAWS = 2000


class TwinSampler:
    """First what teaches the twin, then the candidate with the largest expected gain, each time fitted anew.

    Where the twin cannot know, `other` proposes: for all when it does not know the model's scheduling or is too far
    off; and otherwise, in turns, the values of the parameters whose effect it does not know.

    Args:
        space: What may vary.
        seed: Of the draws.
        goal: What is searched for.
        other: Proposes where the twin cannot.
        note: Is told when the twin steps back, and why.
    """

    def __init__(self, space: SearchSpace, seed: int, goal: Goal, other: Sampler, note: Callable[[str], None]) -> None:
        self._space, self._seed, self._goal, self._other, self._note = space, seed, goal, other, note
        self._scheduling_map = SchedulingMap(space)
        self._forecast_errors = ForecastErrors()
        # By the trial's number, and by how many trials there were.
        self._read: dict[int, ObservedTrial | None] = {}
        self._fitted: tuple[int, Forecast] | None = None
        self._stepped_back = why_not_simulated(space.effective.proto)
        if self._stepped_back:
            note(f"cannot simulate this model's scheduler: {self._stepped_back}; using the tpe sampler")

    def propose(self, history: TrialHistory, seen: Collection[Assignment]) -> Assignment | NoMore:
        """See `Sampler`."""
        trials = history.trials
        if not self._stepped_back and not any(k and _tells(k) for k in map(self._known, trials)):
            self._step_back("the server reports no execution times")
        if self._stepped_back:
            return self._other.propose(history, seen)
        for wanted in calibrations(self._space):
            if wanted not in seen:
                return wanted
        self._learn(trials)
        if len(self._forecast_errors.throughput) >= _IN_TRIALS and self._is_far_off:
            self._step_back(f"its median error of throughput is {self._forecast_errors.typical:.0%}")
            return self._other.propose(history, seen)
        explored = self._explored(history, seen)
        return self._most_promising(trials, seen, explored)

    @property
    def _is_trusted(self) -> bool:
        """Whether the twin's word that there is nothing to gain counts."""
        return len(self._forecast_errors.throughput) >= _TESTED_AFTER and not self._is_far_off

    @property
    def _is_far_off(self) -> bool:
        return self._forecast_errors.typical > _TOO_FAR_OFF

    def _step_back(self, reason: str) -> None:
        self._stepped_back = reason
        self._note(f"simulator off: {reason}; using the tpe sampler")

    def _known(self, trial: TrialResult) -> ObservedTrial | None:
        if trial.number not in self._read:
            _, setting = self._scheduling_map.of(trial.parameters)
            self._read[trial.number] = observed_trial(trial, self._goal.slo.percentile, setting)
        return self._read[trial.number]

    def _learn(self, trials: Sequence[TrialResult]) -> None:
        """Hold each trial since the calibrations against what was expected before it."""
        first = 1 + len(list(calibrations(self._space)))
        told = [self._known(trial) for trial in trials]
        self._forecast_errors.learn(told, first, lambda number: self._forecast(trials[:number]))

    def _forecast(self, trials: Sequence[TrialResult]) -> Forecast:
        # What the next trial is held against is what it was proposed by.
        if self._fitted is None or self._fitted[0] != len(trials):
            told = [each for each in map(self._known, trials) if each]
            goal, cores = self._goal, self._space.machine.cpus
            forecast = Forecast(told, goal.slo.percentile, goal.batch_size, self._forecast_errors, cores)
            self._fitted = len(trials), forecast
        return self._fitted[1]

    def _explored(self, history: TrialHistory, seen: Collection[Assignment]) -> Assignment | None:
        """What the other sampler proposes, of which only what the twin does not know will count; every second time."""
        if not self._scheduling_map.unknown or len(history.trials) % 2:
            return None
        proposed = self._other.propose(history, seen)
        return None if isinstance(proposed, NoMore) else proposed

    def _most_promising(
        self, trials: Sequence[TrialResult], seen: Collection[Assignment], explored: Assignment | None
    ) -> Assignment | NoMore:
        tried = {key_of(self._space.recall(trial.parameters)) for trial in trials if self._known(trial)}
        refused = {key_of(each) for each in seen} - tried
        candidates = [a for a in self._candidates if (key := key_of(a)) in tried or key not in refused]
        candidates = [a for a in candidates if key_of(a) in tried or not self._as_bad(a, trials)]
        told = [self._scheduling_map.of(each) for each in candidates]
        measured = np.array([key_of(each) in tried for each in candidates])
        if measured.all():
            return ALL_SEEN
        expected = self._gains(trials, told, measured)
        score = np.where(measured, -1.0, expected.expected)
        if explored is not None:
            _, setting = self._scheduling_map.of(explored)
            score = np.where([s == setting for _, s in told], score, -1.0)
            if score.max() < 0:
                return explored
        elif self._is_trusted and (expected.likely[~measured].max() < _CHANCE or score.max() < _HARDLY):
            return NoMore(
                f"the simulator expects no candidate to gain more than {WORTHWHILE:.0%} "
                f"(highest probability: {expected.likely[~measured].max():.0%})"
            )
        return candidates[int(np.argmax(score))]

    def _gains(
        self, trials: Sequence[TrialResult], told: Sequence[tuple[Scheduling, int]], measured: NDArray[np.bool_]
    ) -> Gains:
        slo, percentile = self._goal.slo, self._goal.slo.percentile
        curves = self._forecast(trials).curves(told, self._goal.max_concurrency)
        limit_ms = dict(slo.limits).get(percentile)
        if limit_ms is not None:
            return gains(within_limit(curves, limit_ms, self._seed), measured, WORTHWHILE)
        reference_ms = reference_latency_ms(trials[0], percentile, None)
        front = pareto_front(usable_points(trials, (), self._goal.max_gpu_memory), percentile)
        points = np.array([(each.latency_ms(percentile), each.point.throughput.value) for each in front])
        return gains(dominated(curves, reference_ms, points, self._seed), measured, WORTHWHILE)

    def _as_bad(self, assignment: Assignment, trials: Sequence[TrialResult]) -> bool:
        """Whether something no larger did not fit, or did not start."""
        scheduling, _ = self._scheduling_map.of(assignment)
        for trial in trials:
            if trial.failure is not None and trial.failure.cause in _OF_SIZE:
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
        """All, or of a large space some."""
        if self._space.size() <= LISTABLE:
            return tuple(self._space.assignments())
        draws, none = RandomSampler(self._space, self._seed), _Nothing()
        some: list[Assignment] = [self._space.baseline, *calibrations(self._space)]
        for _ in range(_LARGE_SPACE_DRAWS):
            drawn = draws.propose(none, ())
            if not isinstance(drawn, NoMore):
                some.append(drawn)
        return tuple({key_of(each): each for each in some}.values())


class _Nothing:
    """A history without trials."""

    trials: tuple[TrialResult, ...] = ()

    def optuna_trials(self) -> tuple[()]:
        return ()


def _tells(trial: ObservedTrial) -> bool:
    return any(level.executions for level in trial.levels)
