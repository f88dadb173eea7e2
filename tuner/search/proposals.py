"""Proposes the sequence of candidates of a study."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.config.completion import fingerprint, served_fingerprint
from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.measure.trial import TrialResult
from tuner.search.samplers import ALL_SEEN, NoMore, Pending, Sampler, TrialHistory
from tuner.space.candidate import Assignment, Candidate
from tuner.space.space import SearchSpace

ALL_SEEN_OR_SKIPPED = NoMore("every candidate has been measured or skipped")
# Proposals that may be put off at a time, as they have a value that is being launched alone.
_TRIES = 8
# Failures after which a trial does not count as a measurement of its config.
_UNMEASURED = {Cause.CONFIG_DIFFERS, Cause.DUPLICATE}


class Proposals:
    """Proposes candidates for a study. A candidate is proposed again until it is launched or skipped.

    Attributes:
        skipped: Assignments that were skipped.
    """

    def __init__(self, space: SearchSpace, history: TrialHistory, sampler: Sampler) -> None:
        self._space = space
        self._history = history
        self._sampler = sampler
        self.skipped: list[Assignment] = []

    def next(self, pending: Sequence[Pending] = ()) -> Assignment | NoMore:
        """The next candidate's assignment, or why there is none; see `NoMore`.

        A value that the server may not have is launched alone before it is combined with others. While it is launched
        alone, nothing is combined with it.

        Args:
            pending: The trials under way.
        """
        pending = sorted(pending, key=lambda trial: trial.number)
        under_way = [self._space.recall(trial.assignment) for trial in pending]
        launched = (self._space.recall(trial.parameters) for trial in self._history.trials)
        seen = [*launched, *self.skipped, *under_way]
        for _ in range(_TRIES):
            proposed = self._sampler.propose(self._history, seen, pending)
            if isinstance(proposed, NoMore):
                return ALL_SEEN_OR_SKIPPED if proposed == ALL_SEEN and self.skipped else proposed
            tried = [name for name, alone in self._space.alone(proposed) if alone in under_way]
            if not tried:
                return next((alone for _, alone in self._space.alone(proposed) if alone not in seen), proposed)
            without = self._space.normalize({name: value for name, value in proposed.items() if name not in tried})
            if without not in seen:
                return without
            seen.append(proposed)
        return NoMore("the candidates that are left have values that are being launched alone")

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
