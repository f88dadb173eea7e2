"""Estimates the GPU memory of a candidate from the trials so far, and skips those that do not fit.

The model is linear: memory of the server, of each instance (weights), and of each instance and item of its largest
batch (activations). A candidate is skipped if the lower end of its prediction interval (99.5 %) is above the limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.core.quantities import format_size
from tuner.measure.trial import TrialResult
from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE
from tuner.space.candidate import Assignment
from tuner.space.parameter import is_number
from tuner.space.space import SearchSpace
from tuner.space.spec import OFF, LadderValue

_Numbers = npt.NDArray[np.float64]

# One-sided confidence of the prediction interval: of candidates at the limit, 1 in 200 is skipped wrongly.
_CONFIDENCE = 0.995
# The fewest trials, and the fewest residual degrees of freedom, that a fit needs.
_LEAST_TRIALS = 5
_LEAST_FREEDOM = 2
# The least residual, as a share of the mean: allocators round sizes up, and do not return memory.
_LEAST_RESIDUAL = 0.02
# Limits of extrapolation, as factors of the largest value tried. Instances always hold their weights, but larger
# batches need not be filled.
_MOST_INSTANCES, _MOST_BATCHES = 2, 1


@dataclass(frozen=True)
class MemoryFactors:
    """The parameters of a candidate that determine its memory.

    Attributes:
        instances: Instances in each instance group.
        batch: Inferences in the largest possible batch.
        others: Other parameters that may change memory. Trials that differ in them are not compared.
    """

    instances: float
    batch: float
    others: tuple[tuple[str, LadderValue], ...]


def memory_factors(space: SearchSpace, assignment: Assignment, *, batch_size: int) -> MemoryFactors:
    """The memory factors of a candidate.

    Args:
        space: The search space.
        assignment: The candidate's assignment, in its one form (`SearchSpace.normalize`).
        batch_size: Inferences in each request; the batch without dynamic batching.
    """
    fields = {p.name: p.field for p in space.parameters}
    values = {p.field: assignment[p.name] for p in space.parameters if p.name in assignment}
    batching = values.get(DYNAMIC_BATCHING, OFF if not space.effective.holds(DYNAMIC_BATCHING) else "")
    batch = values.get(MAX_BATCH_SIZE, space.effective.proto.max_batch_size) if batching != OFF else batch_size
    instances = values.get(INSTANCE_COUNT, 1)
    modelled = {INSTANCE_COUNT, MAX_BATCH_SIZE, DYNAMIC_BATCHING}
    others = tuple(
        (name, value)
        for name, value in assignment.items()
        # Other fields of dynamic_batching do not change the largest batch.
        if not (fields[name] in modelled and is_number(values[fields[name]]))
        and not (fields[name] + ".").startswith(DYNAMIC_BATCHING + ".")
    )
    return MemoryFactors(
        instances=float(instances) if is_number(instances) else 1.0,
        batch=max(1.0, float(batch)) if is_number(batch) else 1.0,
        others=others,
    )


class MemoryEstimate:
    """Predicts the GPU memory of candidates from the trials so far.

    Args:
        space: The search space.
        trials: Finished trials. Failed ones are ignored: they may have stopped before their memory peaked.
        limit: Limit on the memory of each GPU, in bytes; None: its capacity.
        batch_size: Inferences in each request.
    """

    def __init__(
        self, space: SearchSpace, trials: Sequence[TrialResult], *, limit: int | None, batch_size: int
    ) -> None:
        self._space = space
        self._batch_size = batch_size
        self._measured: list[tuple[MemoryFactors, float]] = []
        limits = [] if limit is None else [limit]
        for trial in trials:
            if trial.failure is None and trial.gpu_memory is not None:
                factors = memory_factors(space, space.recall(trial.parameters), batch_size=batch_size)
                self._measured.append((factors, float(trial.gpu_memory.peak_bytes)))
                if trial.gpu_memory.capacity_bytes is not None:
                    limits.append(trial.gpu_memory.capacity_bytes)
        self.limit = min(limits, default=None)

    def refusal(self, assignment: Assignment) -> str | None:
        """Why a candidate does not fit, at 99.5 % confidence; None when it may fit."""
        if self.limit is None:
            return None
        least = self.least(memory_factors(self._space, assignment, batch_size=self._batch_size))
        if least is None or least <= self.limit:
            return None
        return (
            f"needs at least {format_size(least)} of GPU memory, {format_size(self.limit)} available (estimated from "
            f"{len(self._measured)} trials, {_CONFIDENCE:.1%} confidence)"
        )

    def least(self, factors: MemoryFactors) -> float | None:
        """Lower end of the prediction interval, in bytes; None when the trials do not determine it."""
        alike = [(other, taken) for other, taken in self._measured if other.others == factors.others]
        if not alike:
            return None
        instances = np.array([other.instances for other, _ in alike])
        batches = np.array([other.batch for other, _ in alike])
        if factors.instances < instances.min() or factors.batch < batches.min():
            return None
        design = _design(instances, batches)
        columns = design.shape[1]
        if len(alike) < max(_LEAST_TRIALS, columns + _LEAST_FREEDOM) or len(np.unique(design, axis=0)) <= columns:
            return None
        # Memory never falls with instances or batch size. So beyond the range it is at least the memory at its end.
        within = (
            _within_range(factors.instances, instances, _MOST_INSTANCES),
            _within_range(factors.batch, batches, _MOST_BATCHES),
        )
        at = _row(*within, varied=(bool(np.ptp(instances)), bool(np.ptp(batches))))
        return _lower_end(design, np.array([taken for _, taken in alike]), at)


def _within_range(value: float, tried: _Numbers, factor: int) -> float:
    """Limit a value to the range that trials cover: their only value, or `factor` times their largest."""
    most = float(tried.max())
    return min(value, most if tried.min() == most else most * factor)


def _design(instances: _Numbers, batches: _Numbers) -> _Numbers:
    """(n, k) design matrix, a row for each trial, with a column for each quantity in which the trials differ."""
    varied = bool(np.ptp(instances)), bool(np.ptp(batches))
    return np.array([_row(count, batch, varied=varied) for count, batch in zip(instances, batches, strict=True)])


def _row(instances: float, batch: float, *, varied: tuple[bool, bool]) -> _Numbers:
    some_instances, some_batches = varied
    return np.array([1.0, *([instances] if some_instances else []), *([instances * batch] if some_batches else [])])


def _lower_end(design: _Numbers, taken: _Numbers, at: _Numbers) -> float | None:
    """Lower end of the one-sided prediction interval of ordinary least squares; None where the rank is too low.

    Source: Draper & Smith, Applied Regression Analysis, 3rd ed. (1998), section 3.1.
    """
    coefficients, _, rank, _ = np.linalg.lstsq(design, taken, rcond=None)
    if rank < design.shape[1]:
        return None
    freedom = len(taken) - rank
    residuals = taken - design @ coefficients
    spread = max(math.sqrt(float(residuals @ residuals) / freedom), _LEAST_RESIDUAL * float(taken.mean()))
    leverage = float(at @ np.linalg.pinv(design.T @ design) @ at)
    width = float(special.stdtrit(freedom, _CONFIDENCE)) * spread * math.sqrt(1 + leverage)
    return float(at @ coefficients) - width
