"""Who proposes the next candidate."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial

from tuner.search.objectives import DIRECTIONS, distributions
from tuner.search.quiet import quiet_optuna
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace

# Sizes up to which all assignments are listed to find one that is new.
_LISTABLE = 20_000
_DRAWS = 200


class Sampler(Protocol):
    """Proposes the next assignment to launch, one that was not launched before."""

    def propose(self, told: Sequence[FrozenTrial], seen: Collection[Assignment]) -> Assignment | None:
        """The next assignment; None when there is no new one left.

        Args:
            told: The study's trials so far.
            seen: The assignments that were launched already.
        """


class RandomSampler:
    """Any new assignment, each as likely as its index combinations are many."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._random = random.Random(seed)  # noqa: S311 (no secret)

    def propose(self, told: Sequence[FrozenTrial], seen: Collection[Assignment]) -> Assignment | None:
        """See `Sampler`."""
        del told  # It looks at nothing.
        if self._space.size() <= _LISTABLE:
            new = [a for a in self._space.assignments() if a not in seen]
            return self._random.choice(new) if new else None
        for _ in range(_DRAWS):
            drawn = {p.name: self._random.randrange(len(p.ladder)) for p in self._space.parameters}
            if (assignment := self._space.assignment(drawn)) not in seen:
                return assignment
        return None


class TpeSampler:
    """Optuna's multi-objective TPE on the flat space of ladder indices (Ozaki et al., 2022).

    Parameters that have no effect are part of the flat space; equal candidates are told apart by their assignment,
    so that no launch is spent twice on the same one.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._fallback = RandomSampler(space, seed)

    def propose(self, told: Sequence[FrozenTrial], seen: Collection[Assignment]) -> Assignment | None:
        """See `Sampler`."""
        # A seed of its own for each proposal: the same after --resume as in one go.
        sampler = optuna.samplers.TPESampler(seed=self._seed + len(told), multivariate=True, n_startup_trials=8)
        with quiet_optuna():
            study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
        study.add_trials(told)
        ladders = distributions(self._space)
        for _ in range(_DRAWS):
            assignment = self._space.assignment(study.ask(ladders).params)
            if assignment not in seen:
                return assignment
        return self._fallback.propose(told, seen)
