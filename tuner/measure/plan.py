"""Plans: the next load to measure, chosen from the results so far.

A plan is a generator that yields a load and receives its operating point. It knows no server.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from tuner.core.loads import Load
from tuner.measure.points import OperatingPoint

_Load = TypeVar("_Load", bound=Load)
_Result = TypeVar("_Result")

Plan = Generator[_Load, OperatingPoint, _Result]


def points_of(plan: Plan[_Load, object], measure: Callable[[_Load], OperatingPoint]) -> Iterator[OperatingPoint]:
    """Carry a plan out, and yield each operating point as it comes: an error loses none of the points before it.

    Args:
        plan: The plan.
        measure: Measures one load; its exceptions end the plan.
    """
    try:
        load = next(plan)
        while True:
            point = measure(load)
            yield point
            load = plan.send(point)
    except StopIteration:
        return


def result_of(plan: Plan[_Load, _Result], measure: Callable[[_Load], OperatingPoint]) -> _Result:
    """Carry a plan out, and return its result; see `points_of`."""
    try:
        load = next(plan)
        while True:
            load = plan.send(measure(load))
    except StopIteration as ended:
        result: _Result = ended.value
        return result
