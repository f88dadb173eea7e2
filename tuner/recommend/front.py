"""The Pareto front of latency against throughput, and the area under it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.rivals import Rivals
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import smoothed
from tuner.recommend.verification import Verification


@dataclass(frozen=True)
class TrialPoint:
    """An operating point, and the trial it is of.

    Attributes:
        verified: Whether it was measured again, on launches of its own.
        confirmed: Whether that was after it had been chosen, so that what it says owes nothing to the choice.
    """

    trial: TrialResult
    point: OperatingPoint
    verified: bool = False
    confirmed: bool = False

    def latency_ms(self, percentile: Percentile) -> float:
        """The latency at a percentile."""
        return self.point.latency_ms[percentile].value


def points_of(trial: TrialResult, verified: Iterable[Verification] = ()) -> tuple[TrialPoint, ...]:
    """A trial's operating points that answered all of their requests; what was verified says it anew.

    They come in order of load, and with those loads that were only verified.
    """
    anew = {each.load: each for each in verified if each.trial == trial.number}
    measured: list[tuple[OperatingPoint | None, Verification | None]] = []
    for point in trial.curve:
        again = anew.pop(point.load, None)
        measured.append((again.point if again else point, again))
    measured += [(again.point, again) for again in anew.values()]
    points = [
        TrialPoint(trial, told, verified=again is not None, confirmed=again is not None and again.confirms)
        for told, again in measured
        if told and told.errors == 0
    ]
    return tuple(sorted(points, key=lambda each: each.point.load.level))


def smoothed_points(points: Iterable[TrialPoint]) -> tuple[TrialPoint, ...]:
    """Points of one trial: those of its sweep as the curve through them says, those that were verified as they are."""
    points = tuple(points)
    told = dict(zip((p.point.load for p in points), smoothed(p.point for p in points), strict=True))
    return tuple(p if p.verified else replace(p, point=told[p.point.load]) for p in points)


def usable_points(
    trials: Iterable[TrialResult], verified: Iterable[Verification] = (), max_gpu_memory: int | None = None
) -> tuple[TrialPoint, ...]:
    """The points that could be deployed: what crashed or hung under one load is not to be trusted with another.

    Nor is what took more than `max_gpu_memory` bytes of a GPU.
    """
    verified = tuple(verified)
    usable = (trial for trial in trials if trial.failure is None and excess_memory(trial, max_gpu_memory) <= 0)
    return tuple(point for trial in usable for point in points_of(trial, verified))


def excess_memory(trial: TrialResult, max_gpu_memory: int | None) -> float:
    """By what share of the limit a trial took more memory of a GPU; 0 and below when it did not, or nobody knows."""
    if max_gpu_memory is None or trial.gpu_memory is None:
        return -1.0
    return trial.gpu_memory.peak_bytes / max_gpu_memory - 1


def pareto_front(points: Iterable[TrialPoint], percentile: Percentile) -> tuple[TrialPoint, ...]:
    """The points that no other beats in both latency and throughput, in order of both."""
    front: list[TrialPoint] = []
    for each in sorted(points, key=lambda p: (p.latency_ms(percentile), -p.point.throughput.value)):
        if not front or each.point.throughput.value > front[-1].point.throughput.value:
            front.append(each)
    return tuple(front)


def rivals(front: Iterable[TrialPoint], percentile: Percentile) -> Rivals:
    """What a front asks of the next candidate."""
    return Rivals(tuple((each.point.throughput.value, each.latency_ms(percentile)) for each in front))


def hypervolume(points: Iterable[TrialPoint], percentile: Percentile, reference_latency_ms: float) -> float:
    """The area that the points dominate, in inferences/s times ms.

    It is bounded by no throughput at all and by `reference_latency_ms`; slower points add nothing. With two
    objectives this is a sum of rectangles (Zitzler & Thiele, 1999).
    """
    front = [p for p in pareto_front(points, percentile) if p.latency_ms(percentile) < reference_latency_ms]
    ends = [*(p.latency_ms(percentile) for p in front[1:]), reference_latency_ms]
    return sum((end - p.latency_ms(percentile)) * p.point.throughput.value for p, end in zip(front, ends, strict=False))


def reference_latency_ms(baseline: TrialResult, percentile: Percentile, limit_ms: float | None) -> float:
    """Where the hypervolume ends: at the SLO's limit; without one, at the slowest point of the baseline's curve."""
    if limit_ms is not None:
        return limit_ms
    return max((p.latency_ms(percentile) for p in points_of(baseline)), default=0.0)
