"""What looked better than the best while it was searched for, and why it is not the best all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from tuner.core.slo import SLO
from tuner.measure.trial import TrialResult
from tuner.recommend.front import TrialPoint, points_of, usable_points
from tuner.recommend.recommend import Recommendation, best_point, holds, is_past
from tuner.recommend.shift import LUCK
from tuner.recommend.verification import Verification

_MOST = 3


class WhyNot(Enum):
    """Why a point that looked better was not chosen."""

    NO_TIME = "it was not verified in time"
    FAILED = "it was struck off, as it failed when it was launched again"
    BREAKS = "it was struck off, as it broke the SLO when it was measured again"
    UNSURE = "measured again, it was not sure enough to hold the SLO"


@dataclass(frozen=True)
class NotChosen:
    """A point that looked better.

    Attributes:
        seemed: What the search measured.
        why: Why it is not the best.
        detail: More on that, where there is more.
    """

    seemed: TrialPoint
    why: WhyNot
    detail: str = ""


def not_chosen(
    trials: Sequence[TrialResult], verified: Sequence[Verification], found: Recommendation, limit: int | None = None
) -> tuple[NotChosen, ...]:
    """The best-looking point of each trial that promised more than the best, the most promising first.

    What was measured again and then gave less is not told of: that is why one measures again. Where the best itself was
    not verified, neither is what else was not.

    Args:
        trials: Of the study.
        verified: What was measured again.
        found: What the study recommends.
        limit: Bytes that a server may take of each GPU.
    """
    best = found.best
    if best is None or not verified:
        return ()
    again = {(each.trial, each.load): each for each in verified}
    told = []
    for trial in trials:
        within = usable_points([trial], (), limit) if trial.number else points_of(trial)
        seemed = best_point((each for each in within if _promises(each, best, found)), found.slo)
        if seemed is None:
            continue
        known = again.get((trial.number, seemed.point.load)) or _broken_before(seemed, verified, found.slo)
        if why := _why_not(seemed, known, best, found):
            told.append(NotChosen(seemed, why, (known.failure or "") if known else ""))
    return _most_promising(told)


def _promises(each: TrialPoint, best: TrialPoint, found: Recommendation) -> bool:
    same = (each.trial.number, each.point.load) == (best.trial.number, best.point.load)
    luck = LUCK if best.verified else 1.0
    return not same and holds(each, found.slo) and luck * each.point.throughput.value > best.point.throughput.value


def _broken_before(seemed: TrialPoint, verified: Sequence[Verification], slo: SLO) -> Verification | None:
    """What was measured again of the same config under less load, and broke the SLO there."""
    for each in verified:
        if each.trial == seemed.trial.number and each.point is not None:
            point = TrialPoint(seemed.trial, each.point, verified=True)
            if is_past(seemed, [point]) and not holds(point, slo):
                return each
    return None


def _why_not(seemed: TrialPoint, known: Verification | None, best: TrialPoint, found: Recommendation) -> WhyNot | None:
    if known is None or not (known.rounds or known.failure):
        return WhyNot.NO_TIME if best.verified else None
    if known.failure or known.point is None:
        return WhyNot.FAILED
    if not holds(TrialPoint(seemed.trial, known.point, verified=True), found.slo):
        return WhyNot.BREAKS
    return WhyNot.UNSURE if known.point.throughput.value > best.point.throughput.value else None


def _most_promising(told: Iterable[NotChosen]) -> tuple[NotChosen, ...]:
    return tuple(sorted(told, key=lambda each: -each.seemed.point.throughput.value)[:_MOST])
