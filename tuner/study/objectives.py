"""The form of a trial in Optuna: ladder indices, two objectives, and constraints."""

from __future__ import annotations

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.recommend.front import excess_memory, points_of
from tuner.recommend.recommend import best_point
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)

# TPE ignores trials of state FAIL, so a failed launch is stored as COMPLETE with a violated constraint. Its objectives
# must be finite and worse than those of any other trial.
_WORST_LATENCY_MS = 1e6


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The flat search space: one ladder index for each parameter."""
    return {p.name: IntDistribution(0, len(p.ladder) - 1) for p in space.parameters}


def as_running(assignment: Assignment, space: SearchSpace) -> FrozenTrial:
    """A trial under way for Optuna's samplers."""
    return optuna.create_trial(
        state=TrialState.RUNNING, params=space.indices(assignment), distributions=distributions(space)
    )


def as_optuna_trial(  # noqa: PLR0917 (called at one place)
    result: TrialResult,
    space: SearchSpace,
    slo: SLO,
    attributes: dict[str, str | float],
    max_gpu_memory: int | None = None,
    objective: Objective = THROUGHPUT,
) -> FrozenTrial:
    """A trial for Optuna's storage.

    Its values are the most merit that holds the SLO (see `OperatingPoint.merit`), and the latency at the lowest load. A
    constraint holds if it is at most 0. `launch` is 1 if the trial failed, else -1. `slo` is the excess of its best
    point over the limit, as a share of the limit. `gpu_memory`, if memory is limited, is the excess of the GPU memory
    that it used, as a share of the limit.
    """
    points = points_of(result, (), objective)
    best = best_point(points, slo, objective)
    percentile = objective.percentile_for(slo)
    trial = optuna.create_trial(
        state=TrialState.COMPLETE,
        params=space.indices(result.parameters),
        distributions=distributions(space),
        values=[
            best.merit(objective).value if best else 0.0,
            points[0].latency_ms(percentile) if points else _WORST_LATENCY_MS,
        ],
        user_attrs=dict(attributes),
    )
    excesses = [
        slo.excess({key: i.value for key, i in trial_point.point.limitable_ms.items()}) for trial_point in points
    ]
    trial.set_constraint("slo", min(excesses, default=1.0))
    trial.set_constraint("launch", -1.0 if result.failure is None else 1.0)
    if max_gpu_memory is not None:
        trial.set_constraint("gpu_memory", excess_memory(result, max_gpu_memory))
    return trial
