"""What each field that the best config changes does for it: the best against a trial that lacks just that change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from tuner.load.loads import Concurrency
from tuner.measure.blocks import student
from tuner.measure.points import OperatingPoint
from tuner.measure.record import Interval
from tuner.search.front import TrialPoint, points_of
from tuner.search.gain import ratio
from tuner.search.recommend import best_point, holds
from tuner.search.study import Study
from tuner.search.verification import Verification
from tuner.slo import SLO
from tuner.space.candidate import Assignment
from tuner.space.spec import LadderValue
from tuner.trial import TrialResult

_Pick = Callable[[OperatingPoint], Interval]


@dataclass(frozen=True)
class FieldEffect:
    """What one changed field does.

    Attributes:
        name: The parameter.
        value: In the best config.
        was: In the user's.
        without: The best candidate less this change; None when its other changes ask for this one, which can then not
            be left out alone.
        together: Other changes that go with it, as preferred sizes do without dynamic batching.
        trial: The trial of `without`; None when there is none.
        point: The best point of that trial under the SLO; None when it failed, or holds the SLO at no load.
        throughput: The best point's throughput over that of `point`.
        latency: The same of the latency that counts, where both are under the same load.
    """

    name: str
    value: LadderValue
    was: LadderValue
    without: Assignment | None
    together: tuple[str, ...] = ()
    trial: TrialResult | None = None
    point: TrialPoint | None = None
    throughput: Interval | None = None
    latency: Interval | None = None


def field_effects(study: Study, best: TrialPoint) -> tuple[FieldEffect, ...]:
    """The effects of all fields that the best config changes, in the order of the space."""
    space = study.space
    was = {p.name: p.base for p in space.parameters}
    chosen = space.settle(best.trial.parameters)
    changed = [name for name, value in chosen.items() if value != was[name]]
    effects = []
    for name in changed:
        without = space.settle({**chosen, name: was[name]})
        if without == chosen:
            effects.append(FieldEffect(name, chosen[name], was[name], without=None))
            continue
        together = tuple(other for other in changed if other != name and without.get(other) != chosen[other])
        effect = FieldEffect(name, chosen[name], was[name], without, together)
        trial = next((each for each in study.trials if space.settle(each.parameters) == without), None)
        effects.append(_against(effect, trial, best, study) if trial else effect)
    return tuple(effects)


def _against(effect: FieldEffect, trial: TrialResult, best: TrialPoint, study: Study) -> FieldEffect:
    """The effect, by a trial without the field."""
    slo, verified = study.identity.slo, study.verified
    # The config as it is counts whatever became of it, as it does for the gain.
    points = points_of(trial, verified) if trial.failure is None or trial.number == 0 else ()
    point = best_point(points, slo)
    if point is None:
        return replace(effect, trial=trial)
    same_load = point.point.load == best.point.load
    edge = 0.0 if same_load else _edge(point, points, slo)

    def compared(pick: _Pick, more: float = 0.0) -> Interval:
        launch = _launch_spread(verified, pick)
        shares = [0.0 if each.verified else launch for each in (best, point)]
        return ratio(_known_to(shares[0], pick(best.point)), _known_to(max(shares[1], more), pick(point.point)))

    return replace(
        effect,
        trial=trial,
        point=point,
        throughput=compared(lambda p: p.throughput, edge),
        latency=compared(lambda p: p.latency_ms[slo.percentile]) if same_load else None,
    )


def _known_to(share: float, interval: Interval) -> Interval:
    """The interval, if it is at least so wide: `share` of the value on either side."""
    if interval.relative_half_width >= share:
        return interval
    return Interval(value=interval.value, low=interval.value * (1 - share), high=interval.value * (1 + share))


def _edge(point: TrialPoint, points: Sequence[TrialPoint], slo: SLO) -> float:
    """By what share its throughput may grow until it breaks the SLO: somewhere below the next load that does."""
    if not isinstance(point.point.load, Concurrency):
        return 0.0
    above = [p for p in points if isinstance(p.point.load, Concurrency) and p.point.load.level > point.point.load.level]
    upper = min(above, key=lambda p: p.point.load.level, default=None)
    if upper is None or holds(upper, slo):
        return 0.0
    return max(0.0, upper.point.throughput.value / point.point.throughput.value - 1)


def _launch_spread(verified: Sequence[Verification], pick: _Pick) -> float:
    """How well one launch knows a number: the half width of a 95 % interval, as a share; 0 when nobody knows.

    The variance of its logarithm is pooled over the rounds of all that was verified, so the interval is t's with as
    many degrees of freedom as there are rounds less verifications.
    """
    squares, freedom = 0.0, 0
    for each in verified:
        logs = [math.log(pick(point).value) for point in each.rounds if pick(point).value > 0]
        if logs:
            squares += sum((value - fmean(logs)) ** 2 for value in logs)
            freedom += len(logs) - 1
    if not freedom:
        return 0.0
    return student(freedom + 1) * math.sqrt(squares / freedom)
