"""What each field that the best config changes does for it: the best against a trial that lacks just that change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuner.core.record import Interval
from tuner.measure.trial import TrialResult
from tuner.recommend.front import TrialPoint, points_of
from tuner.recommend.gain import unpaired_ratio
from tuner.recommend.recommend import best_of_one, versus
from tuner.recommend.search_bias import SearchBias
from tuner.space.candidate import Assignment
from tuner.space.spec import LadderValue
from tuner.study.study import Study


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
        pairs: How many rounds, in which both ran side by side, `throughput` is from; 0: from each one's own launches.
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
    pairs: int = 0


def field_effects(study: Study, best: TrialPoint) -> tuple[FieldEffect, ...]:
    """The effects of all fields that the best config changes, in the order of the space."""
    space = study.space
    was = {p.name: p.base for p in space.parameters}
    chosen = space.recall(best.trial.parameters)
    changed = [name for name, value in chosen.items() if value != was[name]]
    trials = study.trials
    bias = SearchBias.of(trials, study.verified, study.identity.slo.percentile)
    effects = []
    for name in changed:
        without = space.settle({**chosen, name: was[name]})
        if without == chosen:
            effects.append(FieldEffect(name, chosen[name], was[name], without=None))
            continue
        together = tuple(other for other in changed if other != name and without.get(other) != chosen[other])
        effect = FieldEffect(name, chosen[name], was[name], without, together)
        trial = next((each for each in trials if space.recall(each.parameters) == without), None)
        effects.append(_against(effect, trial, best, study, bias) if trial else effect)
    return tuple(effects)


def _against(effect: FieldEffect, trial: TrialResult, best: TrialPoint, study: Study, bias: SearchBias) -> FieldEffect:
    """The effect, by a trial without the field."""
    slo, verified = study.identity.slo, study.verified
    # The baseline counts whatever became of it, as it does for the gain.
    points = points_of(trial, verified) if trial.failure is None or trial.number == 0 else ()
    point = best_of_one(points, slo, bias)
    if point is None:
        return replace(effect, trial=trial)
    point, found = versus(best, point, points, slo, verified)
    same_load = point.point.load == best.point.load
    latency = unpaired_ratio(best, point, verified, lambda p: p.latency_ms[slo.percentile]) if same_load else None
    return replace(effect, trial=trial, point=point, throughput=found.ratio, latency=latency, pairs=found.pairs)
