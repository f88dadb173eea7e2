"""Searches without a study on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.search.samplers import NoMore, Sampler
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.study.objectives import as_optuna_trial

Measure = Callable[[int, Assignment], TrialResult]
"""What the trial of a number tells of a candidate."""


@dataclass
class Past:
    """What was measured so far."""

    space: SearchSpace
    slo: SLO = field(default_factory=SLO)
    trials: list[TrialResult] = field(default_factory=list)
    objective: Objective = THROUGHPUT

    def optuna_trials(self) -> Sequence[FrozenTrial]:
        return [as_optuna_trial(each, self.space, self.slo, {}, None, self.objective) for each in self.trials]

    @property
    def seen(self) -> list[Assignment]:
        return [each.parameters for each in self.trials]


def walk(sampler: Sampler, past: Past, measure: Measure, steps: int) -> NoMore | None:
    """Propose, measure and tell, so many times, or until there is no more."""
    for number in range(len(past.trials), len(past.trials) + steps):
        proposed = sampler.propose(past, past.seen)
        if isinstance(proposed, NoMore):
            return proposed
        past.trials.append(measure(number, proposed))
    return None
