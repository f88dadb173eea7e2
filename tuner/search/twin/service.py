"""Execution times by batch size and busy instances, fitted to measurements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import least_squares

# Length scales of a Gaussian process with a Matérn 3/2 kernel (Rasmussen & Williams, 2006, chapters 2 and 4) on the
# logarithm of the time. Its coordinates are logarithms (base 2) of batch size, busy instances, and the ratio of the
# others' batch size to this one.
_OCTAVES = np.array([2.0, 1.5, 1.5])
_AMPLITUDES = (0.05, 0.1, 0.2, 0.4)
# Noise, as standard deviations of the logarithm: between loads of a config on a shared machine, and between executions.
_BETWEEN_LOADS, _BETWEEN_EXECUTIONS = 0.15, 0.3
# Settings of the parameters that are not modelled: correlation of residuals, and deviation of a setting as a whole.
_CORRELATION, _DEVIATION = 0.7, 0.15
# Priors of the law, as medians and deviations of logarithms: each inference adds a tenth of the fixed time, and each
# busy neighbour adds three tenths of the execution's time.
_ITEM, _ITEM_SPREAD, _NEIGHBOUR, _NEIGHBOUR_SPREAD = math.log(0.1), 1.5, math.log(0.3), 1.5


@dataclass(frozen=True)
class Execution:
    """The executions of one batch size under one load.

    Attributes:
        setting: Number of the setting of the parameters that are not modelled.
        batch_size: Inferences in each execution.
        busy: Mean number of busy instances during these executions, including the executing one.
        neighbour_size: Mean inferences in an execution of the other instances, over time.
        service_ms: Mean execution time, in ms.
        count: Number of executions.
    """

    setting: int
    batch_size: float
    busy: float
    neighbour_size: float
    service_ms: float
    count: int


class ServiceTimes:
    """Predicts execution times by a law and a residual, both fitted to measurements.

    The law: a + c * batch size, plus g * (a + c * its batch size) for each busy neighbour. The residual is a factor.

    Args:
        executions: The measured executions, at least one.
    """

    def __init__(self, executions: Iterable[Execution]) -> None:
        measured = list(executions)
        self._points = np.array(
            [[math.log2(e.batch_size), math.log2(e.busy), math.log2(e.neighbour_size / e.batch_size)] for e in measured]
        )
        self._settings = np.array([e.setting for e in measured])
        logs = np.log([e.service_ms for e in measured])
        spread = [math.hypot(_BETWEEN_LOADS, _BETWEEN_EXECUTIONS / math.sqrt(e.count)) for e in measured]
        self._law = self._fit(logs, np.array(spread))
        residuals = logs - _law_at(self._law, self._points)
        self._amplitude, self._factor = self._likeliest(residuals, np.diag(np.square(spread)))
        self._weights = cho_solve(self._factor, residuals)

    def table_ms(self, setting: int, largest: int, instances: int) -> NDArray[np.float64]:
        """Execution times in ms, by batch size (rows, 0 to `largest`) and busy instances (columns, from 1)."""
        sizes = np.log2(np.maximum(1, np.arange(largest + 1)))
        busy = np.log2(np.arange(1, instances + 1))
        points = np.array([(size, k, 0.0) for size in sizes for k in busy])
        across = self._kernel(points, np.full(len(points), setting))(self._amplitude)
        times = np.exp(_law_at(self._law, points) + across @ self._weights).reshape(largest + 1, instances)
        # Larger batches and more busy neighbours never take less time. A decrease is noise.
        monotonic: NDArray[np.float64] = np.maximum.accumulate(np.maximum.accumulate(times, axis=0), axis=1)
        return monotonic

    def _fit(self, logs: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
        """The logarithms of a, c / a and g, fitted with priors for quantities that were not measured."""

        def misfit(law: NDArray[np.float64]) -> NDArray[np.float64]:
            prior = [(law[1] - _ITEM) / _ITEM_SPREAD, (law[2] - _NEIGHBOUR) / _NEIGHBOUR_SPREAD]
            return np.concatenate([(_law_at(law, self._points) - logs) / (spread + 0.05), prior])

        start = np.array([float(logs.min()), _ITEM, _NEIGHBOUR])
        fitted: NDArray[np.float64] = least_squares(misfit, start, loss="soft_l1").x
        return fitted

    def _kernel(
        self, points: NDArray[np.float64], settings: NDArray[np.int64]
    ) -> Callable[[float], NDArray[np.float64]]:
        """Covariances of `points` (rows) with the measured points (columns), given the amplitude."""
        distance = np.linalg.norm((points[:, None] - self._points[None]) / _OCTAVES, axis=2) * math.sqrt(3)
        same = settings[:, None] == self._settings[None]
        near = (1 + distance) * np.exp(-distance) * np.where(same, 1.0, _CORRELATION)
        own = _DEVIATION**2 * same
        return lambda amplitude: amplitude**2 * near + own

    def _likeliest(
        self, residuals: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> tuple[float, tuple[NDArray[np.float64], bool]]:
        """The amplitude of the largest marginal likelihood, and the Cholesky factor of its covariance."""
        kernel = self._kernel(self._points, self._settings)
        best, chosen = -math.inf, None
        for amplitude in _AMPLITUDES:
            factor = cho_factor(kernel(amplitude) + noise)
            likelihood = -0.5 * float(residuals @ cho_solve(factor, residuals)) - float(
                np.log(np.diag(factor[0])).sum()
            )
            if chosen is None or likelihood > best:
                best, chosen = likelihood, (amplitude, factor)
        if chosen is None:
            raise AssertionError("there are amplitudes")
        return chosen


def _law_at(law: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) logarithms of the law's times at (n, 3) points: base-2 logarithms of size, busy instances, relative size."""
    base, item, neighbour = law
    size, busy, larger = (2**points).T
    alone, others = 1 + np.exp(item) * size, 1 + np.exp(item) * size * larger
    logs: NDArray[np.float64] = base + np.log(alone + np.exp(neighbour) * (busy - 1) * others)
    return logs


def pooled(executions: Sequence[Execution]) -> list[Execution]:
    """Pool executions of similar batch sizes (half octaves), so that the fit has few points."""
    bins: dict[int, list[Execution]] = {}
    for execution in executions:
        bins.setdefault(round(2 * math.log2(execution.batch_size)), []).append(execution)
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
