"""The launches that teach the twin most."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import Parameter, is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import ON, LadderValue


def calibrations(space: SearchSpace) -> Iterator[Assignment]:
    """First the largest batches, by as few instances as may be: under rising loads they come in all sizes, undisturbed.

    Then the same with the most instances, which shows how they disturb each other.
    """
    batching = {p.name: ON for p in space.parameters if p.field == DYNAMIC_BATCHING and ON in p.ladder}
    largest = _end(space, MAX_BATCH_SIZE, max)
    settled = [
        space.settle({**batching, **largest, **_end(space, INSTANCE_COUNT, min)}),
        space.settle({**batching, **largest, **_end(space, INSTANCE_COUNT, max)}),
    ]
    for number, wanted in enumerate(settled):
        if wanted != space.baseline and wanted not in settled[:number]:
            yield wanted


def _end(space: SearchSpace, field: str, which: Callable[[list[int | float]], int | float]) -> dict[str, LadderValue]:
    """The parameter of a field at one end of its ladder."""
    found: dict[str, LadderValue] = {}
    for parameter in space.parameters:
        numbers = _numbers(parameter) if parameter.field == field else []
        if numbers:
            found[parameter.name] = which(numbers)
    return found


def _numbers(parameter: Parameter) -> list[int | float]:
    return [value for value in parameter.ladder if is_number(value)]
