"""The walk that Triton's users take by hand."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import ON, LadderValue


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
