"""Which operating point is best, and by how much it beats the user's config."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.measure.record import Interval
from tuner.search.front import TrialPoint, pareto_front, points_of, usable_points
from tuner.search.verification import Verification
from tuner.slo import SLO
from tuner.trial import TrialResult


@dataclass(frozen=True)
class Recommendation:
    """What a study says, for one SLO.

    Attributes:
        baseline: The best point of the user's config under the same SLO; None when it holds it at no load.
        best: The point of highest throughput that holds the SLO; None when none does.
        gain: Throughput of `best` over that of `baseline`; None when either is missing.
        front: The points that no other beats in both latency and throughput.
    """

    slo: SLO
    baseline: TrialPoint | None
    best: TrialPoint | None
    gain: Interval | None
    front: tuple[TrialPoint, ...]


def recommend(
    trials: Sequence[TrialResult],
    slo: SLO,
    verified: Sequence[Verification] = (),
    max_gpu_memory: int | None = None,
) -> Recommendation:
    """Read a recommendation off the trials of a study, of which the first is the baseline.

    Of a point that was verified counts what the verification says. A quicker point whose throughput is surely below the
    baseline's gives way to it, unless the baseline failed. A trial that took more than `max_gpu_memory` bytes
    of a GPU is neither best nor on the front.
    """
    baseline = best_point([point for trial in trials[:1] for point in points_of(trial, verified)], slo)
    points = usable_points(trials, verified, max_gpu_memory)
    best = best_point(points, slo)
    if best and baseline in points and ratio(best.point.throughput, baseline.point.throughput).high < 1:
        best = baseline
    gain = ratio(best.point.throughput, baseline.point.throughput) if best and baseline else None
    return Recommendation(slo, baseline, best, gain, pareto_front(points, slo.percentile))


def best_point(points: Iterable[TrialPoint], slo: SLO) -> TrialPoint | None:
    """The point of highest throughput that holds the SLO; of those whose intervals overlap its own, the quickest."""
    holding = [p for p in points if holds(p, slo)]
    if not holding:
        return None
    highest = max(holding, key=lambda p: p.point.throughput.value)
    rivals = [p for p in holding if p.point.throughput.high >= highest.point.throughput.low]
    return min(rivals, key=lambda p: p.latency_ms("p99"))


def holds(point: TrialPoint, slo: SLO) -> bool:
    """Whether a point keeps every limit."""
    return point.point.holds(slo)


def ratio(above: Interval, below: Interval) -> Interval:
    """The ratio of two independent measurements, with its 95 % interval by the delta method on the logarithm."""
    value = above.value / below.value
    spread = math.hypot(above.relative_half_width, below.relative_half_width)
    return Interval(value=value, low=value * math.exp(-spread), high=value * math.exp(spread))
