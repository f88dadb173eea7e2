"""The sequence of candidates that a study launches."""

from __future__ import annotations

from tuner.search.samplers import ALL_SEEN, NoMore, Sampler
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.study.study import Study

ALL_SEEN_OR_SKIPPED = NoMore("every candidate has been measured or skipped")


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

    def next(self) -> Assignment | NoMore:
        """The next candidate's assignment, or why there is none."""
        launched = (self._space.recall(trial.parameters) for trial in self._study.trials)
        proposed = self._sampler.propose(self._study, [*launched, *self.skipped])
        return ALL_SEEN_OR_SKIPPED if proposed == ALL_SEEN and self.skipped else proposed

    def skip(self, assignment: Assignment) -> None:
        """Mark a candidate as skipped: it is not proposed again."""
        self.skipped.append(assignment)
