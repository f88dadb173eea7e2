"""Samplers: each proposes the next candidate from the trials so far."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial

from tuner.measure.trial import TrialResult
from tuner.recommend.host_effects import HostEffects
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.study.objectives import DIRECTIONS, as_running, distributions
from tuner.study.quiet import quiet_optuna

LISTABLE = 20_000
"""The largest search space whose assignments are all listed to find a new one."""
# The most random draws to find a new assignment in a larger space.
_DRAWS = 200


@dataclass(frozen=True)
class NoMore:
    """The sampler has nothing more to propose.

    While trials are pending, it has nothing for now: ask again when one of them has finished. Without pending trials,
    the search has ended.

    Attributes:
        reason: Why, for the user.
    """

    reason: str


ALL_SEEN = NoMore("every candidate has been measured")


@dataclass(frozen=True)
class Pending:
    """A trial that is under way.

    Attributes:
        number: The trial's number, given when it was submitted.
        assignment: Its candidate's assignment.
    """

    number: int
    assignment: Assignment


class TrialHistory(Protocol):
    """The finished trials, in order of their ends, which may differ from the order of their numbers."""

    @property
    def trials(self) -> Sequence[TrialResult]:
        """The trials, the baseline first."""

    @property
    def host_effects(self) -> HostEffects:
        """How much faster or slower each host is; `NO_HOSTS` where one host measures all."""

    def optuna_trials(self) -> Sequence[FrozenTrial]:
        """The same trials as Optuna's samplers see them."""


class Sampler(Protocol):
    """Proposes the next assignment to launch, always a new one.

    A proposal follows from the seed, the finished trials in order, and the pending ones.
    """

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """The next assignment, or why there is none.

        Args:
            history: The finished trials.
            seen: Assignments that were launched or skipped, pending ones included.
            pending: The trials under way, in order of their numbers.
        """


class RandomSampler:
    """A random new assignment, uniform over the index combinations."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._random = random.Random(seed)  # noqa: S311 (no secret)

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """See `Sampler`."""
        del history, pending  # random choice does not depend on them
        if self._space.size() <= LISTABLE:
            new = [a for a in self._space.assignments() if a not in seen]
            return self._random.choice(new) if new else ALL_SEEN
        for _ in range(_DRAWS):
            drawn = {p.name: self._random.randrange(len(p.ladder)) for p in self._space.parameters}
            if (assignment := self._space.assignment(drawn)) not in seen:
                return assignment
        return ALL_SEEN


class GridSampler:
    """Every assignment, in the order of the space."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """See `Sampler`."""
        del history, pending
        return next((a for a in self._space.assignments() if a not in seen), ALL_SEEN)


class FirstThen:
    """Proposes given candidates first, in order, and then those of another sampler."""

    def __init__(self, first: Iterable[Assignment], sampler: Sampler) -> None:
        self._first = tuple(first)
        self._sampler = sampler

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """See `Sampler`."""
        for first in self._first:
            if first not in seen:
                return first
        return self._sampler.propose(history, seen, pending)


class _OptunaSampler(ABC):
    """One of Optuna's samplers on the flat space of ladder indices.

    Parameters without effect are part of the flat space. Equal candidates have equal assignments, so none is launched
    twice. Pending trials are running ones of a study in memory, which the sampler keeps away from. They end with that
    study, so none is left there when a host is lost.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._fallback = RandomSampler(space, seed)

    def propose(
        self, history: TrialHistory, seen: Collection[Assignment], pending: Sequence[Pending] = ()
    ) -> Assignment | NoMore:
        """See `Sampler`."""
        trials = history.optuna_trials()
        # Each proposal has its own seed, so that a resumed run proposes the same.
        seed = self._seed + len(trials) + len(pending)
        with quiet_optuna():
            study = optuna.create_study(directions=DIRECTIONS, sampler=self._sampler(seed))
            ladders = distributions(self._space)
            study.add_trials([*trials, *(as_running(each.assignment, self._space) for each in pending)])
            for _ in range(self._draws):
                assignment = self._space.assignment(study.ask(ladders).params)
                if assignment not in seen:
                    return assignment
        return self._fallback.propose(history, seen, pending)

    _draws = _DRAWS

    @abstractmethod
    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make Optuna's sampler for one proposal."""


class TpeSampler(_OptunaSampler):
    """Optuna's multi-objective TPE (Ozaki et al., 2022)."""

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8, constant_liar=True)


class GpSampler(_OptunaSampler):
    """Optuna's Gaussian process; it needs PyTorch (see `check_installed`)."""

    # Few draws, since each is slow, and later ones are rarely new if the first is not.
    _draws = 4

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=8, deterministic_objective=False)
