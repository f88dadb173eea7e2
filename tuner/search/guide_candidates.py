"""The candidates that Triton's optimization guide has users try by hand."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import ON, LadderValue


def first_candidates(space: SearchSpace) -> Iterator[Assignment]:
    """The steps of Triton's optimization guide: dynamic batching, twice the instances, both, and larger batches.

    Source: the "Optimization" chapter of the Triton user guide.
    """
    batching = {p.name: ON for p in space.parameters if p.field == DYNAMIC_BATCHING and ON in p.ladder}
    instances = _doubled(space, INSTANCE_COUNT)
    batches = _doubled(space, MAX_BATCH_SIZE)
    for values in (batching, instances, {**batching, **instances}, {**batching, **instances, **batches}):
        assignment = space.settle(values)
        if assignment != space.baseline:
            yield assignment


def _doubled(space: SearchSpace, field: str) -> dict[str, LadderValue]:
    """The parameter of a field at the ladder value nearest to twice the baseline's."""
    return {
        p.name: value
        for p in space.parameters
        if p.field == field and is_number(p.base) and (value := p.nearest(p.base * 2)) is not None
    }
