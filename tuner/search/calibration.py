"""The launches that calibrate the simulator."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import ON, LadderValue


def calibrations(space: SearchSpace) -> Iterator[Assignment]:
    """The candidates to launch first for the simulator.

    The first has the largest batches on the fewest instances: under rising loads, batches of all sizes run undisturbed.
    The second has twice the instances, which shows how instances slow each other down. It launches quickly, and fits
    where many more instances might not.
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
    assignments = [space.settle({**batching, **instances}) for instances in (fewest, twice)]
    for number, assignment in enumerate(assignments):
        if assignment != space.baseline and assignment not in assignments[:number]:
            yield assignment
