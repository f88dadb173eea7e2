"""The progress of a night, or of a job of the service, as plain log lines."""

from __future__ import annotations

from collections.abc import Callable

from tuner.core.errors import shortened
from tuner.core.objectives import THROUGHPUT
from tuner.core.quantities import format_duration
from tuner.core.slo import SLO, Percentile
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.recommend import Recommendation, recommend
from tuner.results.words import gain_in_words, missed_everywhere, point_in_words
from tuner.study.study import Study


class NightProgress(Progress):
    """Writes one line for each event.

    Args:
        say: Takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._trials: dict[int, str] = {}
        self._percentile: Percentile | None = None

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._say(shortened(text))

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """See `Progress`."""
        slo = f"SLO {study.identity.slo}" if study.identity.slo.root else "no SLO"
        goal = "" if study.identity.objective == THROUGHPUT else f"{study.identity.objective}, "
        self._say(f"tuning {model}: {goal}{slo}, budget {format_duration(budget_s)}")

    def measurement_began(self, model: str, slo: SLO) -> None:
        """See `Progress`."""
        self._percentile = slo.percentile
        self._say(f"measuring {model}")

    def point_measured(self, point: OperatingPoint, *, trial: int | None = None) -> None:
        """See `Progress`. The points of a trial have no lines."""
        del trial
        if self._percentile:
            self._say(point_in_words(point, self._percentile))

    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        """See `Progress`."""
        self._trials[number] = f"trial {number}{f' on {slot}' if slot else ''}: {words}"

    def trial_dropped(self, number: int, reason: str) -> None:
        """See `Progress`."""
        self._trials.pop(number, None)
        super().trial_dropped(number, reason)

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """See `Progress`."""
        slo, objective = recommendation.slo, recommendation.objective
        best = recommend((result,), slo, objective=objective).best
        if result.failure:
            text = f"{result.failure.cause.value}: {shortened(result.failure.message)}"
        elif best:
            text = point_in_words(best.point, recommendation.percentile, objective)
        else:
            text = missed_everywhere(slo, objective)
        self._say(
            f"{self._trials.pop(result.number, f'trial {result.number}')}: {text} ({format_duration(result.wall_s)})"
        )

    def model_ended(self, outcome: ModelOutcome) -> None:
        """See `Progress`."""
        recommendation = outcome.recommendation
        best = "no candidate holds the SLO"
        if recommendation.best == recommendation.baseline and recommendation.best:
            best = "the baseline"
        elif recommendation.best:
            gain = f", {gain_in_words(recommendation.gain, recommendation.objective)}" if recommendation.gain else ""
            best = f"trial {recommendation.best.trial.number}{gain}"
        self._say(f"{outcome.model}: {outcome.ended}; best: {best}")
