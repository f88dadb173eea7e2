"""Which candidate is launched next: rules of thumb first, then the sampler."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.search.samplers import Sampler
from tuner.search.study import Study
from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import ON, LadderValue


class Proposals:
    """Proposes candidates for a study, each once; one that is neither launched nor skipped is proposed again.

    Attributes:
        skipped: Candidates that were not launched, and are proposed no more.
    """

    def __init__(self, space: SearchSpace, study: Study, sampler: Sampler) -> None:
        self._space = space
        self._study = study
        self._sampler = sampler
        self.skipped: list[Assignment] = []

    def next(self) -> Assignment | None:
        """The next candidate's assignment; None when every one has been launched or skipped."""
        seen = [*(self._space.settle(trial.parameters) for trial in self._study.trials), *self.skipped]
        for first in first_candidates(self._space):
            if first not in seen:
                return first
        return self._sampler.propose(self._study.told(), seen)

    def skip(self, assignment: Assignment) -> None:
        """Propose a candidate no more, though it was not launched."""
        self.skipped.append(assignment)


def first_candidates(space: SearchSpace) -> Iterator[Assignment]:
    """The walk of Triton's optimization guide: dynamic batching, more instances, both; then larger batches, too.

    Source: the "Optimization" chapter of the Triton user guide.
    """
    batching = {p.name: ON for p in space.parameters if p.field == DYNAMIC_BATCHING and ON in p.ladder}
    instances = _doubled(space, INSTANCE_COUNT)
    batches = _doubled(space, MAX_BATCH_SIZE)
    for wanted in (batching, instances, {**batching, **instances}, {**batching, **instances, **batches}):
        settled = space.settle(wanted)
        if settled != space.baseline:
            yield settled


def _doubled(space: SearchSpace, field: str) -> dict[str, LadderValue]:
    """The parameter of a field at the ladder's value next to twice the model's own."""
    return {
        p.name: value
        for p in space.parameters
        if p.field == field and is_number(p.base) and (value := p.nearest(p.base * 2)) is not None
    }
