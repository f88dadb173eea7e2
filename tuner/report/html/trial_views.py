"""The trials of a study as the page shows them: config, outcome, and operating points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.core.errors import shortened
from tuner.core.loads import Concurrency
from tuner.core.objectives import Objective
from tuner.core.quantities import format_size
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import TrialPoint, excess_memory, points_of
from tuner.recommend.recommend import Recommendation, best_point
from tuner.recommend.verification import Verification
from tuner.report.html.diff_lines import DiffLine, diff_lines
from tuner.results.points_json import short
from tuner.results.result_files import trial_diff
from tuner.space.candidate import in_words
from tuner.study.study import Study

BASELINE_WORDS = "the baseline"


@dataclass(frozen=True)
class TrialView:
    """A trial as the page shows it.

    Attributes:
        trial: The trial.
        words: Its changed parameters; of trial 0, `the baseline`.
        fared: `holds`, `breaks` or `failed`: whether it holds the SLO.
        outcome: The outcome, for people.
        points: Points whose requests were all answered, in order of load; verified points replace those of the sweep.
        upward: The metric of the upward axis of plots against latency.
        shown: The point for the table: the best within the SLO, else that of lowest latency; None: there is none.
        diff: The diff of its config against the user's.
    """

    trial: TrialResult
    words: str
    fared: str
    outcome: str
    points: tuple[TrialPoint, ...]
    upward: Objective
    shown: TrialPoint | None
    diff: tuple[DiffLine, ...]

    @property
    def number(self) -> int:
        """The number of the trial."""
        return self.trial.number

    @property
    def data(self) -> dict[str, Any]:
        """The data for the page's script, shown when the trial is selected."""
        return {
            "trial": self.number,
            "words": self.words,
            "outcome": self.outcome,
            "fared": self.fared,
            "failure": shortened(self.trial.failure.message) if self.trial.failure else None,
            "diff": [[line.kind, line.text] for line in self.diff],
            "points": [_point_data(trial_point, self.upward) for trial_point in self.points],
        }


def trial_views(study: Study, recommendation: Recommendation) -> tuple[TrialView, ...]:
    """The views of all trials of a study."""
    verified = study.verified
    return tuple(_candidate(study, recommendation, verified, trial) for trial in study.trials)


def _candidate(
    study: Study,
    recommendation: Recommendation,
    verified: Sequence[Verification],
    trial: TrialResult,
) -> TrialView:
    slo, objective = recommendation.slo, recommendation.objective
    points = points_of(trial, verified, objective)
    best = best_point(points, slo, objective)
    fared, outcome = _outcome(study, recommendation, trial, holds=best is not None)
    return TrialView(
        trial=trial,
        words=in_words(trial.parameters, study.trials[0].parameters) if trial.number else BASELINE_WORDS,
        fared=fared,
        outcome=outcome,
        points=points,
        upward=objective.upward,
        shown=best
        or min(points, key=lambda trial_point: trial_point.latency_ms(recommendation.percentile), default=None),
        diff=diff_lines(trial_diff(study, trial)),
    )


def _outcome(study: Study, recommendation: Recommendation, trial: TrialResult, *, holds: bool) -> tuple[str, str]:
    if trial.failure:
        return "failed", trial.failure.cause.value.replace("_", " ")
    if trial.gpu_memory and excess_memory(trial, study.identity.max_gpu_memory) > 0:
        return "failed", f"took {format_size(trial.gpu_memory.peak_bytes)} of GPU memory"
    asked = bool(recommendation.slo.root)
    if not holds:
        late = bool(trial.curve) and all(point.kept_up is False for point in trial.curve)
        missed = "does not keep up" if late else "violates the SLO" if asked else "fails some requests"
        return "breaks", missed if trial.curve else "nothing was measured"
    if recommendation.best and recommendation.best.trial.number == trial.number:
        return "holds", "best"
    return "holds", "holds the SLO" if asked else "answers all requests"


def _point_data(trial_point: TrialPoint, upward: Objective) -> dict[str, Any]:
    point = trial_point.point
    throughput, up = point.throughput, point.merit(upward)
    return {
        "load": str(point.load),
        "concurrency": point.load.requests if isinstance(point.load, Concurrency) else None,
        "throughput": [short(throughput.value), short(throughput.low), _finite(throughput.high)],
        "upward": [short(up.value), short(up.low), _finite(up.high)],
        "latency": {
            name: [short(interval.value), short(interval.low), _finite(interval.high)]
            for name, interval in point.latency_ms.items()
        },
        "batch": None if point.average_batch_size is None else short(point.average_batch_size),
        "verified": trial_point.verified,
        "doubts": warnings_of(point),
    }


def warnings_of(point: OperatingPoint) -> str:
    """The reasons of a point's quality warnings, in one line; empty: none."""
    return "; ".join(warning.reason for warning in point.warnings)


def _finite(value: float) -> float | None:
    return short(value) if value < float("inf") else None
