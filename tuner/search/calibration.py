"""The launches that teach the twin most."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import ON, LadderValue


def calibrations(space: SearchSpace) -> Iterator[Assignment]:
    """First the largest batches, by as few instances as may be: under rising loads they come in all sizes, undisturbed.

    Then the same with twice the instances, which shows how they disturb each other, is soon launched, and fits where
    many more might not.
    """
    batching: dict[str, LadderValue] = {
        p.name: ON for p in space.parameters if p.field == DYNAMIC_BATCHING and ON in p.ladder
    }
    fewest: dict[str, LadderValue] = {}
    twice: dict[str, LadderValue] = {}
    for parameter in space.parameters:
        numbers = [value for value in parameter.ladder if is_number(value)]
        if parameter.field == MAX_BATCH_SIZE and numbers:
            batching[parameter.name] = max(numbers)
        if parameter.field == INSTANCE_COUNT and numbers:
            fewest[parameter.name] = min(numbers)
            twice[parameter.name] = parameter.nearest(2 * min(numbers)) or min(numbers)
    settled = [space.settle({**batching, **instances}) for instances in (fewest, twice)]
    for number, wanted in enumerate(settled):
        if wanted != space.baseline and wanted not in settled[:number]:
            yield wanted
