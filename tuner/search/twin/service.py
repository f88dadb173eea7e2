"""How long executions take, by batch size and busy instances, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import least_squares

# A Gaussian process with a Matérn 3/2 kernel (Rasmussen & Williams, 2006, chapters 2 and 4) on the logarithm of the
# time, over the logarithms (base 2) of batch size, busy instances, and how many times as large the others' batches are.
_OCTAVES = np.array([2.0, 1.5, 1.5])
_AMPLITUDES = (0.05, 0.1, 0.2, 0.4)
# Loads of the same config differ by so much, where others use the machine; and means of few executions by more.
_BETWEEN_LOADS, _BETWEEN_EXECUTIONS = 0.15, 0.3
# What one setting of the parameters that the twin does not know tells of another.
_ALIKE, _ALL_OVER = 0.7, 0.15
# Before anything is known: a request of a batch adds a tenth of what the batch takes, and a busy neighbour a third.
_ITEM, _ITEM_SPREAD, _NEIGHBOUR, _NEIGHBOUR_SPREAD = math.log(0.1), 1.5, math.log(0.3), 1.5


@dataclass(frozen=True)
class Execution:
    """What executions of one size took under one load.

    Attributes:
        setting: Which setting of the parameters that the twin does not know.
        batch_size: Inferences in each.
        busy: Instances that were busy meanwhile, itself included, in the mean.
        neighbour_size: Inferences in each execution of the other instances, in the mean over time.
        service_ms: Their mean time.
        count: How many there were.
    """

    setting: int
    batch_size: float
    busy: float
    neighbour_size: float
    service_ms: float
    count: int


class ServiceTimes:
    """The time of an execution as a + c * batch size, and g times that of each neighbour; and what differs from that.

    Args:
        executions: What was measured, at least one.
    """

    def __init__(self, executions: Iterable[Execution]) -> None:
        seen = list(executions)
        self._points = np.array(
            [[math.log2(e.batch_size), math.log2(e.busy), math.log2(e.neighbour_size / e.batch_size)] for e in seen]
        )
        self._settings = np.array([e.setting for e in seen])
        logs = np.log([e.service_ms for e in seen])
        spread = [math.hypot(_BETWEEN_LOADS, _BETWEEN_EXECUTIONS / math.sqrt(e.count)) for e in seen]
        self._law = self._fit(logs, np.array(spread))
        rest = logs - _law_at(self._law, self._points)
        self._amplitude, self._factor = self._likeliest(rest, np.diag(np.square(spread)))
        self._weights = cho_solve(self._factor, rest)

    def table_ms(self, setting: int, largest: int, instances: int) -> NDArray[np.float64]:
        """Times by batch size (rows, 0 to `largest`) and instances that are busy with the same (columns, from 1)."""
        sizes = np.log2(np.maximum(1, np.arange(largest + 1)))
        busy = np.log2(np.arange(1, instances + 1))
        points = np.array([(size, k, 0.0) for size in sizes for k in busy])
        across = self._kernel(points, np.full(len(points), setting), self._amplitude)
        times = np.exp(_law_at(self._law, points) + across @ self._weights).reshape(largest + 1, instances)
        # Larger batches and more neighbours take no less; what says so is chance.
        monotonic: NDArray[np.float64] = np.maximum.accumulate(np.maximum.accumulate(times, axis=0), axis=1)
        return monotonic

    def _fit(self, logs: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithms of a, c / a, and g; a priori likely values stand in for what was not measured."""

        def misfit(law: NDArray[np.float64]) -> NDArray[np.float64]:
            prior = [(law[1] - _ITEM) / _ITEM_SPREAD, (law[2] - _NEIGHBOUR) / _NEIGHBOUR_SPREAD]
            return np.concatenate([(_law_at(law, self._points) - logs) / (spread + 0.05), prior])

        start = np.array([float(logs.min()), _ITEM, _NEIGHBOUR])
        found: NDArray[np.float64] = least_squares(misfit, start, loss="soft_l1").x
        return found

    def _kernel(
        self, points: NDArray[np.float64], settings: NDArray[np.int64], amplitude: float
    ) -> NDArray[np.float64]:
        """Covariances of `points` (rows) with what was measured (columns)."""
        apart = np.linalg.norm((points[:, None] - self._points[None]) / _OCTAVES, axis=2) * math.sqrt(3)
        same = settings[:, None] == self._settings[None]
        near = amplitude**2 * (1 + apart) * np.exp(-apart)
        covariance: NDArray[np.float64] = near * np.where(same, 1.0, _ALIKE) + _ALL_OVER**2 * same
        return covariance

    def _likeliest(
        self, rest: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> tuple[float, tuple[NDArray[np.float64], bool]]:
        """The amplitude under which what was measured is likeliest, and the factor of its covariance."""
        best, chosen = -math.inf, None
        for amplitude in _AMPLITUDES:
            factor = cho_factor(self._kernel(self._points, self._settings, amplitude) + noise)
            likelihood = -0.5 * float(rest @ cho_solve(factor, rest)) - float(np.log(np.diag(factor[0])).sum())
            if chosen is None or likelihood > best:
                best, chosen = likelihood, (amplitude, factor)
        if chosen is None:
            raise AssertionError("there are amplitudes")
        return chosen


def _law_at(law: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the time at points, rows of logarithms as in `ServiceTimes`."""
    base, item, neighbour = law
    size, busy, larger = (2**points).T
    alone, others = 1 + np.exp(item) * size, 1 + np.exp(item) * size * larger
    told: NDArray[np.float64] = base + np.log(alone + np.exp(neighbour) * (busy - 1) * others)
    return told


def pooled(executions: Sequence[Execution]) -> list[Execution]:
    """Sizes that are near each other together, so that few tell as much as many."""
    bins: dict[int, list[Execution]] = {}
    for each in executions:
        bins.setdefault(round(2 * math.log2(each.batch_size)), []).append(each)
    return [_pool(near) for near in bins.values()]


def _pool(near: Sequence[Execution]) -> Execution:
    counts = np.array([e.count for e in near])
    share = counts / counts.sum()
    return Execution(
        setting=near[0].setting,
        batch_size=float(share @ [e.batch_size for e in near]),
        busy=near[0].busy,
        neighbour_size=near[0].neighbour_size,
        service_ms=float(share @ [e.service_ms for e in near]),
        count=int(counts.sum()),
    )
