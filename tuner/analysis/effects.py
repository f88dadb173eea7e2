"""The effect of each changed field: the best config compared with a trial without that change."""

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
    """The effect of one changed field.

    Attributes:
        name: The parameter.
        value: Its value in the best config.
        was: Its value in the baseline.
        without: The best candidate without this change; None: other changes require this one.
        together: Other changes that disappear with it, such as preferred sizes without dynamic batching.
        trial: The trial of `without`; None: there is none.
        point: The best point of that trial within the SLO; None: it failed, or violates the SLO at every load.
        gain: Ratio of the best point's merit to that of `point`.
        latency: Ratio of latency at the SLO's percentile, likewise; None unless both are under the same load.
        pairs: Number of rounds with both side by side behind `gain`; 0: it is from independent launches.
    """

    name: str
    value: LadderValue
    was: LadderValue
    without: Assignment | None
    together: tuple[str, ...] = ()
    trial: TrialResult | None = None
    point: TrialPoint | None = None
    gain: Interval | None = None
    latency: Interval | None = None
    pairs: int = 0


def field_effects(study: Study, best: TrialPoint) -> tuple[FieldEffect, ...]:
    """The effects of all fields that the best config changes, in the order of the space."""
    space = study.space
    was = {p.name: p.base for p in space.parameters}
    chosen = space.recall(best.trial.parameters)
    changed = [name for name, value in chosen.items() if value != was[name]]
    trials = study.trials
    bias = SearchBias.of(trials, study.verified, study.identity.percentile)
    effects = []
    for name in changed:
        without = space.normalize({**chosen, name: was[name]})
        if without == chosen:
            effects.append(FieldEffect(name, chosen[name], was[name], without=None))
            continue
        together = tuple(other for other in changed if other != name and without.get(other) != chosen[other])
        effect = FieldEffect(name, chosen[name], was[name], without, together)
        trial = next((other for other in trials if space.recall(other.parameters) == without), None)
        effects.append(_against(effect, trial, best, study, bias) if trial else effect)
    return tuple(effects)


def _against(effect: FieldEffect, trial: TrialResult, best: TrialPoint, study: Study, bias: SearchBias) -> FieldEffect:
    """The effect computed from a trial without the change."""
    slo, objective, verified = study.identity.slo, study.identity.objective, study.verified
    # The points of the baseline count even if it failed, as for the gain.
    points = points_of(trial, verified, objective) if trial.failure is None or trial.number == 0 else ()
    point = best_of_one(points, slo, bias, objective)
    if point is None:
        return replace(effect, trial=trial)
    point, gain = versus(best, point, points, slo, verified, objective)
    same_load = point.point.load == best.point.load
    percentile = study.identity.percentile
    latency = unpaired_ratio(best, point, verified, lambda p: p.latency_ms[percentile]) if same_load else None
    return replace(effect, trial=trial, point=point, gain=gain.ratio, latency=latency, pairs=gain.pairs)
