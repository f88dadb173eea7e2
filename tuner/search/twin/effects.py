"""Prior knowledge about parameters that the simulator does not model: which of their values have similar effects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.space.candidate import Assignment
from tuner.space.parameter import Parameter, is_number
from tuner.space.spec import LadderValue

# Length scale of numbers, as a share of the ladder's range on a logarithmic scale (Matérn 3/2 kernel).
_RANGE = 0.8


class Effects:
    """Correlations of the effects of parameter values, relative to the model's own values.

    The effect of a parameter's own value is 0, and so is that of a parameter without effect (`when`), which an
    assignment lacks. Numbers that are close to each other on a logarithmic scale have similar effects; other values
    are only similar in that they are not the model's own one.

    Args:
        parameters: The p parameters.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = tuple(parameters)
        self._tables = [_correlations(parameter) for parameter in parameters]

    def __len__(self) -> int:
        return len(self._parameters)

    def places(self, assignments: Sequence[Assignment]) -> NDArray[np.int64]:
        """Ladder indices of the parameters (columns) in assignments (rows)."""
        rows = [[p.index(assignment.get(p.name, p.base)) for p in self._parameters] for assignment in assignments]
        return np.array(rows, np.int64).reshape(len(rows), len(self._parameters))

    def changes(self, rows: NDArray[np.int64], start: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """(n,) the number of parameters that differ from those in `start`, (p,) or (n, p); None: the model's own."""
        if start is None:
            start = np.array([p.index(p.base) for p in self._parameters], np.int64)
        return np.asarray((rows != start).sum(axis=-1))

    def correlations(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """(p, n, m) prior correlations of each parameter's effect in n and in m assignments; see `places`."""
        tables = [table[rows[:, number, None], columns[None, :, number]] for number, table in enumerate(self._tables)]
        return np.array(tables).reshape(len(tables), len(rows), len(columns))

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(p, n) prior variances of each parameter's effect in n assignments, as shares of the largest one."""
        sizes = [np.diag(table)[rows[:, number]] for number, table in enumerate(self._tables)]
        return np.array(sizes).reshape(len(sizes), len(rows))


def _correlations(parameter: Parameter) -> NDArray[np.float64]:
    """Correlations by ladder indices, with 0 for the model's own value: of f(value) - f(own value)."""
    values = [_number(value) for value in parameter.ladder]
    known = [value for value in values if value is not None]
    span = max(known, default=0.0) - min(known, default=0.0)

    def alike(one: int, other: int) -> float:
        here, there = values[one], values[other]
        if one == other:
            return 1.0
        if here is None or there is None or span == 0:
            return 0.0
        distance = math.sqrt(3) * abs(here - there) / (span * _RANGE)
        return (1 + distance) * math.exp(-distance)

    own, indices = parameter.index(parameter.base), range(len(values))
    centred = [[alike(i, j) - alike(i, own) - alike(own, j) + 1.0 for j in indices] for i in indices]
    # The farthest value from the model's own has the whole effect.
    table = np.array(centred)
    scaled: NDArray[np.float64] = table / max(float(np.diag(table).max()), 1e-9)
    return scaled


def _number(value: LadderValue) -> float | None:
    """The position of a number, or of a text that is one, on a logarithmic scale; None: it is no number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, tuple) or not is_number(value) or not math.isfinite(value):
        return None
    return math.copysign(math.log2(1 + abs(value)), value)
