"""The Pareto front of latency and the objective, and its hypervolume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Interval
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.rivals import Rivals
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import smoothed
from tuner.recommend.verification import Verification


@dataclass(frozen=True)
class TrialPoint:
    """An operating point with its trial.

    Attributes:
        trial: The trial.
        point: The operating point.
        verified: Whether it was relaunched.
        confirmed: Whether a relaunch came after it was chosen, so that its numbers are free of the winner's curse.
    """

    trial: TrialResult
    point: OperatingPoint
    verified: bool = False
    confirmed: bool = False

    def merit(self, objective: Objective) -> Interval:
        """See `OperatingPoint.merit`."""
        return self.point.merit(objective)

    def latency_ms(self, percentile: Percentile) -> float:
        """The latency at a percentile, in ms."""
        return self.point.latency_ms[percentile].value


def points_of(
    trial: TrialResult, verified: Iterable[Verification] = (), objective: Objective = THROUGHPUT
) -> tuple[TrialPoint, ...]:
    """The operating points of a trial whose requests were all answered in time, in order of load.

    A verified point replaces that of the search. Loads that were only verified are included. Points at which the
    objective is unknown are not.
    """
    relaunched = {verification.load: verification for verification in verified if verification.trial == trial.number}
    measured: list[tuple[OperatingPoint | None, Verification | None]] = []
    for point in trial.curve:
        verification = relaunched.pop(point.load, None)
        measured.append((verification.point if verification else point, verification))
    measured += [(verification.point, verification) for verification in relaunched.values()]
    points = [
        TrialPoint(
            trial, current, verified=verification is not None, confirmed=bool(verification and verification.confirms)
        )
        for current, verification in measured
        if current and current.is_answered and current.value(objective)
    ]
    return tuple(sorted(points, key=lambda trial_point: trial_point.point.load.level))


def smoothed_points(points: Iterable[TrialPoint]) -> tuple[TrialPoint, ...]:
    """The points of one trial: smoothed points of the sweep, and unchanged verified points."""
    points = tuple(points)
    by_load = dict(zip((p.point.load for p in points), smoothed(p.point for p in points), strict=True))
    return tuple(p if p.verified else replace(p, point=by_load[p.point.load]) for p in points)


def usable_points(
    trials: Iterable[TrialResult],
    verified: Iterable[Verification] = (),
    max_gpu_memory: int | None = None,
    objective: Objective = THROUGHPUT,
) -> tuple[TrialPoint, ...]:
    """The points that may be deployed: all points of trials that did not fail and kept the limit on GPU memory.

    A config that crashed or hung under one load is not trusted under another.

    Args:
        trials: The trials.
        verified: All relaunched points.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
        objective: The objective, which must be known.
    """
    verified = tuple(verified)
    usable = (trial for trial in trials if trial.failure is None and excess_memory(trial, max_gpu_memory) <= 0)
    return tuple(point for trial in usable for point in points_of(trial, verified, objective))


def excess_memory(trial: TrialResult, max_gpu_memory: int | None) -> float:
    """GPU memory beyond the limit, as a share of the limit; at most 0 when within it or unknown."""
    if max_gpu_memory is None or trial.gpu_memory is None:
        return -1.0
    return trial.gpu_memory.peak_bytes / max_gpu_memory - 1


def pareto_front(
    points: Iterable[TrialPoint], percentile: Percentile, objective: Objective = THROUGHPUT
) -> tuple[TrialPoint, ...]:
    """The points that no other beats in both latency and the objective, in ascending order of latency.

    If the objective is that latency, it is the one quickest point.
    """
    front: list[TrialPoint] = []
    for trial_point in sorted(points, key=lambda p: (p.latency_ms(percentile), -p.merit(objective).value)):
        if not front or trial_point.merit(objective).value > front[-1].merit(objective).value:
            front.append(trial_point)
    return tuple(front)


def rivals(front: Iterable[TrialPoint], percentile: Percentile, objective: Objective = THROUGHPUT) -> Rivals:
    """The front as bounds by which the sweep of a candidate stops early; see `Rivals`."""
    return Rivals(
        tuple((trial_point.merit(objective).value, trial_point.latency_ms(percentile)) for trial_point in front)
    )


def hypervolume(
    points: Iterable[TrialPoint],
    percentile: Percentile,
    reference_latency_ms: float,
    objective: Objective = THROUGHPUT,
) -> float:
    """The area that the points dominate, in the objective's unit times ms; of a minimized latency, the most merit.

    Its reference point is 0 of the objective and `reference_latency_ms`; slower points add nothing. With two objectives
    it is a sum of rectangles (Zitzler & Thiele, 1999), with one it is a length.
    """
    front = pareto_front(points, percentile, objective)
    if not objective.maximizes:
        return max((p.merit(objective).value for p in front), default=0.0)
    front = tuple(p for p in front if p.latency_ms(percentile) < reference_latency_ms)
    ends = [*(p.latency_ms(percentile) for p in front[1:]), reference_latency_ms]
    return sum((end - p.latency_ms(percentile)) * p.merit(objective).value for p, end in zip(front, ends, strict=False))


def reference_latency_ms(baseline: TrialResult, percentile: Percentile, limit_ms: float | None) -> float:
    """Reference latency of the hypervolume, in ms: the SLO's limit, else the slowest point of the baseline."""
    if limit_ms is not None:
        return limit_ms
    return max((p.latency_ms(percentile) for p in points_of(baseline)), default=0.0)
