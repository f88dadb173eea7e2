"""How much memory of a GPU a candidate would take, from what the trials so far took; skips what surely does not fit.

A line through the trials: what the server takes by itself, what each instance takes, and what each takes for each
item of its largest batch (weights, and activations). A candidate is sure not to fit where even the lower end of the
prediction interval is above the limit.
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

# One in so many candidates of which the line has it wrong is skipped for nothing.
_CONFIDENCE = 0.995
# Fewer trials say nothing, however well they lie on a line; nor do those that leave so little to judge it by.
_FEWEST = 5
_SPARE = 2
# What does not lie on the line at the least: allocators round up, and keep what they once had.
_SPREAD = 0.02
# Of what was tried. Each instance holds its weights, but larger batches need not be filled.
_REACH_OF_INSTANCES, _REACH_OF_BATCHES = 2, 1


@dataclass(frozen=True)
class Demand:
    """What decides how much memory a candidate takes.

    Attributes:
        instances: In each group.
        batch: The largest batch that may be formed.
        others: All that is not known to leave memory alone; trials that differ in it are not compared.
    """

    instances: float
    batch: float
    others: tuple[tuple[str, LadderValue], ...]


def demand(space: SearchSpace, assignment: Assignment, *, batch_size: int) -> Demand:
    """Of a candidate's assignment.

    Args:
        space: That it is of.
        assignment: Settled.
        batch_size: Inferences in each request, which is the batch where none is formed.
    """
    fields = {p.name: p.field for p in space.parameters}
    values = {p.field: assignment[p.name] for p in space.parameters if p.name in assignment}
    batching = values.get(DYNAMIC_BATCHING, OFF if not space.effective.holds(DYNAMIC_BATCHING) else "")
    batch = values.get(MAX_BATCH_SIZE, space.effective.proto.max_batch_size) if batching != OFF else batch_size
    instances = values.get(INSTANCE_COUNT, 1)
    known = {INSTANCE_COUNT, MAX_BATCH_SIZE, DYNAMIC_BATCHING}
    others = tuple(
        (name, value)
        for name, value in assignment.items()
        # Which batches are formed, and when, is bounded by the largest.
        if not (fields[name] in known and is_number(values[fields[name]]))
        and not (fields[name] + ".").startswith(DYNAMIC_BATCHING + ".")
    )
    return Demand(
        instances=float(instances) if is_number(instances) else 1.0,
        batch=max(1.0, float(batch)) if is_number(batch) else 1.0,
        others=others,
    )


class MemoryEstimate:
    """What the trials so far say of the memory of candidates.

    Args:
        space: Of all of them.
        trials: Finished ones; those that failed on the way had not yet taken all that they would.
        limit: Bytes that a server may take of each GPU; None: as many as there were.
        batch_size: Inferences in each request.
    """

    def __init__(
        self, space: SearchSpace, trials: Sequence[TrialResult], *, limit: int | None, batch_size: int
    ) -> None:
        self._space = space
        self._batch_size = batch_size
        self._known: list[tuple[Demand, float]] = []
        limits = [] if limit is None else [limit]
        for trial in trials:
            if trial.failure is None and trial.gpu_memory is not None:
                of = demand(space, space.recall(trial.parameters), batch_size=batch_size)
                self._known.append((of, float(trial.gpu_memory.peak_bytes)))
                if trial.gpu_memory.capacity_bytes is not None:
                    limits.append(trial.gpu_memory.capacity_bytes)
        self.limit = min(limits, default=None)

    def refusal(self, assignment: Assignment) -> str | None:
        """Why a candidate surely does not fit, in words; None when it might."""
        if self.limit is None:
            return None
        least = self.least(demand(self._space, assignment, batch_size=self._batch_size))
        if least is None or least <= self.limit:
            return None
        return (
            f"by {len(self._known)} trials it would take {format_size(least)} of GPU memory or more, and there is room"
            f" for {format_size(self.limit)}"
        )

    def least(self, wanted: Demand) -> float | None:
        """The bytes that a candidate takes at the least, as far as the trials can tell; None where they cannot."""
        alike = [(of, taken) for of, taken in self._known if of.others == wanted.others]
        if not alike:
            return None
        instances = np.array([of.instances for of, _ in alike])
        batches = np.array([of.batch for of, _ in alike])
        if wanted.instances < instances.min() or wanted.batch < batches.min():
            return None
        design = _design(instances, batches)
        if len(alike) < max(_FEWEST, design.shape[1] + _SPARE) or len(np.unique(design, axis=0)) <= design.shape[1]:
            return None
        # More of either never takes less, so what lies beyond reach takes at least what lies at its end.
        within = (
            _within_reach(wanted.instances, instances, _REACH_OF_INSTANCES),
            _within_reach(wanted.batch, batches, _REACH_OF_BATCHES),
        )
        at = _row(*within, varied=(bool(np.ptp(instances)), bool(np.ptp(batches))))
        return _lower_end(design, np.array([taken for _, taken in alike]), at)


def _within_reach(wanted: float, tried: _Numbers, reach: int) -> float:
    """As much of what is wanted as trials can speak of: nothing beyond the one value that all of them had."""
    most = float(tried.max())
    return min(wanted, most if tried.min() == most else most * reach)


def _design(instances: _Numbers, batches: _Numbers) -> _Numbers:
    """(n, k) a row a trial: what memory is a sum of, as far as the trials differ in it."""
    varied = bool(np.ptp(instances)), bool(np.ptp(batches))
    return np.array([_row(each, batch, varied=varied) for each, batch in zip(instances, batches, strict=True)])


def _row(instances: float, batch: float, *, varied: tuple[bool, bool]) -> _Numbers:
    some_instances, some_batches = varied
    return np.array([1.0, *([instances] if some_instances else []), *([instances * batch] if some_batches else [])])


def _lower_end(design: _Numbers, taken: _Numbers, at: _Numbers) -> float | None:
    """The lower end of the one-sided prediction interval of ordinary least squares; None where the rows are too alike.

    Source: Draper & Smith, Applied Regression Analysis, 3rd ed. (1998), section 3.1.
    """
    coefficients, _, rank, _ = np.linalg.lstsq(design, taken, rcond=None)
    if rank < design.shape[1]:
        return None
    freedom = len(taken) - rank
    left_over = taken - design @ coefficients
    spread = max(math.sqrt(float(left_over @ left_over) / freedom), _SPREAD * float(taken.mean()))
    leverage = float(at @ np.linalg.pinv(design.T @ design) @ at)
    width = float(special.stdtrit(freedom, _CONFIDENCE)) * spread * math.sqrt(1 + leverage)
    return float(at @ coefficients) - width
