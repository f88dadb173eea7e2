"""What the simulator expects of later launches of the trials, from what all trials tell together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.measure.trial import TrialResult
from tuner.recommend.speed import Speed
from tuner.search.goal import Goal
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.effects import Effects
from tuner.search.twin.joint_forecast import JointForecast
from tuner.search.twin.observed_trial import observed_trial
from tuner.search.twin.scheduling import why_not_simulated
from tuner.space.space import SearchSpace

# The simulator tells nothing from fewer trials, or when it misses the typical trial that it was fitted to by more.
_LEAST_TRIALS, _MOST_ERROR = 4, 0.2
# Loads under which a trial gives at least this share of its highest throughput count.
_FULL = 0.5


def expected_speeds(trials: Sequence[TrialResult], space: SearchSpace, goal: Goal, seed: int) -> dict[int, Speed]:
    """By trial, the expected speed of later launches relative to its own launch, by the simulator times its factors.

    Args:
        trials: The trials of a search.
        space: Its space.
        goal: Its goal.
        seed: The seed of the samples of the factors.

    Returns:
        The speeds of all measured trials; empty when the simulator cannot predict these trials.
    """
    if why_not_simulated(space.effective.proto):
        return {}
    schedulings = SchedulingMap(space)
    settings = {trial.number: schedulings.of(trial.parameters) for trial in trials}
    read = [(trial, observed_trial(trial, goal.slo.percentile, settings[trial.number][1])) for trial in trials]
    observed = [(trial, each, space.recall(trial.parameters)) for trial, each in read if each]
    executions = any(level.executions for _, each, _ in observed for level in each.levels)
    if len(observed) < _LEAST_TRIALS or not executions:
        return {}
    forecast = JointForecast(
        [(each, assignment) for _, each, assignment in observed],
        Effects(schedulings.unknown),
        goal.slo.percentile,
        goal.batch_size,
        cores=space.machine.cpus,
        seed=seed,
    )
    if np.median([forecast.errors(each, assignment)[0] for _, each, assignment in observed]) > _MOST_ERROR:
        return {}
    candidates = [(settings[trial.number][0], assignment) for trial, _, assignment in observed]
    samples = forecast.curves(candidates, goal.max_concurrency)
    loads = samples[0].concurrency
    means = np.array([sample.throughput for sample in samples])
    deviations = np.array([sample.throughput_deviation for sample in samples])
    speeds = {}
    for row, (trial, each, _) in enumerate(observed):
        measured = {level.concurrency: level.throughput for level in each.levels}
        least = _FULL * max(measured.values())
        predicted = np.isfinite(means[:, row]).all(axis=0)
        columns = [n for n, load in enumerate(loads) if predicted[n] and measured.get(int(load), 0.0) >= least]
        if columns:
            off = (means[:, row, columns] - np.log([measured[int(loads[n])] for n in columns])).mean(axis=1)
            deviation = np.hypot(off.std(), deviations[:, row, columns].mean())
            speeds[trial.number] = Speed(float(off.mean()), float(deviation))
    return speeds
