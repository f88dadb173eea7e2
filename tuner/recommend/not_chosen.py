"""Points that looked better in the search than the recommended one, and why they were not chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tuner.core.objectives import Objective
from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.recommend.front import TrialPoint, points_of, usable_points
from tuner.recommend.recommend import Recommendation, best_point, holds, is_past
from tuner.recommend.search_bias import WINNERS_CURSE
from tuner.recommend.verification import Verification

_MOST = 3


class WhyNot(Enum):
    """Why a point that looked better was not chosen."""

    NO_TIME = "it was not verified in time"
    FAILED = "it was eliminated: it failed when relaunched"
    BREAKS = "it was eliminated: it violated the SLO when relaunched"
    UNSURE = "when relaunched, it was not shown to hold the SLO"
    UNCONFIRMED = "when relaunched, it was not confirmed to be better"


@dataclass(frozen=True)
class NotChosen:
    """A point that looked better than the recommended one.

    Attributes:
        searched: The point as the search measured it.
        why: Why it was not chosen.
        detail: The message of the failure; empty without one.
    """

    searched: TrialPoint
    why: WhyNot
    detail: str = ""


def not_chosen(
    trials: Sequence[TrialResult],
    verified: Sequence[Verification],
    recommendation: Recommendation,
    limit: int | None = None,
) -> tuple[NotChosen, ...]:
    """The best point of each trial that looked better than the recommended one, in descending order of merit.

    Points that gave less when relaunched are omitted, as relaunches exist to find these. If the recommended point is
    not verified, other unverified points are left out as well.

    Args:
        trials: All trials of the study.
        verified: All relaunched points.
        recommendation: The recommendation of the study.
        limit: Limit on the memory of each GPU, in bytes; None: no limit.

    Returns:
        At most three.
    """
    best = recommendation.best
    if best is None or not verified:
        return ()
    slo, objective = recommendation.slo, recommendation.objective
    relaunches = {(verification.trial, verification.load): verification for verification in verified}
    better = []
    for trial in trials:
        within = usable_points([trial], (), limit, objective) if trial.number else points_of(trial, (), objective)
        searched = best_point((point for point in within if _promises(point, best, slo, objective)), slo, objective)
        if searched is None:
            continue
        relaunched = relaunches.get((trial.number, searched.point.load)) or _broken_before(searched, verified, slo)
        if why := _why_not(searched, relaunched, best, slo, objective):
            better.append(NotChosen(searched, why, (relaunched.failure or "") if relaunched else ""))
    return _most_promising(better, objective)


def _promises(trial_point: TrialPoint, best: TrialPoint, slo: SLO, objective: Objective) -> bool:
    same = (trial_point.trial.number, trial_point.point.load) == (best.trial.number, best.point.load)
    factor = WINNERS_CURSE if best.verified else 1.0
    promised = factor * trial_point.merit(objective).value
    return not same and holds(trial_point, slo) and promised > best.merit(objective).value


def _broken_before(searched: TrialPoint, verified: Sequence[Verification], slo: SLO) -> Verification | None:
    """The relaunched point of the same config, under at most this load, that broke the SLO; None: there is none."""
    for verification in verified:
        if verification.trial == searched.trial.number and verification.point is not None:
            point = TrialPoint(searched.trial, verification.point, verified=True)
            if is_past(searched, [point]) and not holds(point, slo):
                return verification
    return None


def _why_not(
    searched: TrialPoint, relaunched: Verification | None, best: TrialPoint, slo: SLO, objective: Objective
) -> WhyNot | None:
    if relaunched is None or not (relaunched.rounds or relaunched.failure):
        return WhyNot.NO_TIME if best.verified else None
    if relaunched.failure or relaunched.point is None:
        return WhyNot.FAILED
    if not holds(TrialPoint(searched.trial, relaunched.point, verified=True), slo):
        return WhyNot.BREAKS
    known = relaunched.point.value(objective) is not None
    if not known or relaunched.point.merit(objective).value <= best.merit(objective).value:
        return None
    return WhyNot.UNSURE if slo.root else WhyNot.UNCONFIRMED


def _most_promising(points: Iterable[NotChosen], objective: Objective) -> tuple[NotChosen, ...]:
    return tuple(sorted(points, key=lambda better: -better.searched.merit(objective).value)[:_MOST])
