"""Searches without a study on disk."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.recommend.host_effects import NO_HOSTS, HostEffects
from tuner.search.samplers import NoMore, Pending, Sampler
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
    host_effects: HostEffects = NO_HOSTS

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


def walk_in_parallel(
    sampler: Sampler,
    past: Past,
    measure: Measure,
    steps: int,
    *,
    slots: int,
    takes: Callable[[int], float] = lambda _number: 1.0,
) -> NoMore | None:
    """Keep all slots busy with trials, each of which takes its time; trials are told in order of their ends.

    Args:
        sampler: What proposes.
        past: What was measured, to which is added.
        measure: What is measured.
        steps: Number of proposals.
        slots: Number of trials at a time.
        takes: How long the trial of a number takes.

    Returns:
        What ended the search, when nothing was under way any more.
    """
    now, first = 0.0, len(past.trials)
    running: list[tuple[float, int]] = []
    pending: dict[int, Pending] = {}
    beside: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    while True:
        ended: NoMore | None = None
        while len(running) < slots and first + steps > (number := len(past.trials) + len(running)):
            seen = [*past.seen, *(each.assignment for each in pending.values())]
            proposed = sampler.propose(past, seen, tuple(pending.values()))
            if isinstance(proposed, NoMore):
                ended = proposed
                break
            beside[number] = tuple(each.number for each in past.trials), tuple(pending)
            pending[number] = Pending(number, proposed)
            heapq.heappush(running, (now + takes(number), number))
        if not running:
            return ended
        now, number = heapq.heappop(running)
        after, others = beside[number]
        told = measure(number, pending.pop(number).assignment)
        past.trials.append(told.model_copy(update={"after": after, "beside": others}))
