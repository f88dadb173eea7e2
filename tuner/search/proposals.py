"""Proposes the sequence of candidates of a study."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.config.completion import fingerprint, served_fingerprint
from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.search.samplers import ALL_SEEN, NoMore, Pending, Sampler
from tuner.space.candidate import Assignment, Candidate
from tuner.space.space import SearchSpace
from tuner.study.study import Study

ALL_SEEN_OR_SKIPPED = NoMore("every candidate has been measured or skipped")
# Failures after which a trial does not count as a measurement of its config.
_UNMEASURED = {Cause.CONFIG_DIFFERS, Cause.DUPLICATE}


class Proposals:
    """Proposes candidates for a study. A candidate is proposed again until it is launched or skipped.

    Attributes:
        skipped: Assignments that were skipped.
    """

    def __init__(self, space: SearchSpace, study: Study, sampler: Sampler) -> None:
        self._space = space
        self._study = study
        self._sampler = sampler
        self.skipped: list[Assignment] = []

    def next(self, pending: Sequence[Pending] = ()) -> Assignment | NoMore:
        """The next candidate's assignment, or why there is none.

        A value that the server may not have is launched alone before it is combined with others.

        Args:
            pending: The trials that are under way.
        """
        launched = (self._space.recall(trial.parameters) for trial in self._study.trials)
        seen = [*launched, *(each.assignment for each in pending), *self.skipped]
        proposed = self._sampler.propose(self._study, seen)
        if isinstance(proposed, NoMore):
            return ALL_SEEN_OR_SKIPPED if proposed == ALL_SEEN and self.skipped else proposed
        return next((alone for _, alone in self._space.alone(proposed) if alone not in seen), proposed)

    def skip(self, assignment: Assignment) -> None:
        """Mark a candidate as skipped: it is not proposed again."""
        self.skipped.append(assignment)


class ServedConfigs:
    """The configs that were served, by fingerprint."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._read = 0

    def read(self, trials: Sequence[TrialResult]) -> None:
        """Add the trials of a study, except for trials added before."""
        for trial in trials[self._read :]:
            if trial.effective_config and not (trial.failure and trial.failure.cause in _UNMEASURED):
                launched = ModelConfig.parse(trial.config, "a trial's config")
                effective = ModelConfig.parse(trial.effective_config, "the effective config")
                for key in (fingerprint(launched), served_fingerprint(effective, launched)):
                    self._numbers.setdefault(key + trial.others.beyond_config, trial.number)
        self._read = len(trials)

    def frozen(self) -> ServedConfigs:
        """A copy for work that is carried out elsewhere, or later."""
        copy = ServedConfigs()
        copy._numbers, copy._read = dict(self._numbers), self._read
        return copy

    def same_as(self, candidate: Candidate, effective: ModelConfig | None = None) -> int | None:
        """The number of the trial with the same effective config; None when there is none.

        Args:
            candidate: The candidate.
            effective: Its effective config; None before the launch.
        """
        number = self._numbers.get(candidate.fingerprint)
        if number is None and effective is not None:
            served = served_fingerprint(effective, candidate.config)
            number = self._numbers.get(served + candidate.others.beyond_config)
        return number
