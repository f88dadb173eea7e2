"""Whoever wants to see a run while it happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.core.errors import TritontuneError
from tuner.core.loads import Load
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.recommend import Recommendation
from tuner.servers.docker.pull import Pull
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


@dataclass(frozen=True)
class ModelOutcome:
    """How the tuning of one model ended.

    Attributes:
        folder: Of the whole run.
        ended: Why the search stopped, in words.
    """

    folder: RunFolder
    model: str
    study: Study
    recommendation: Recommendation
    ended: str


class Progress:
    """Is told what happens. This one does not care; the terminal's are in `tuner.report`."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def pulling(self, pull: Pull) -> None:
        """The engine gets an image, and is so far with it."""

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """The tuning of a model begins, or goes on with what its study holds."""

    def trial_began(self, number: int, words: str) -> None:
        """A candidate is about to be launched."""

    def level_began(self, load: Load) -> None:
        """A load level is about to be measured."""

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""

    def trial_ended(self, result: TrialResult, standing: Recommendation) -> None:
        """A trial is finished and stored; `standing` is what the study says now."""

    def model_ended(self, outcome: ModelOutcome) -> None:
        """The tuning of a model is over."""

    def model_failed(self, model: str, error: TritontuneError) -> None:
        """The tuning of a model failed; `model_ended` came before when it had measured something."""

    def reported(self, path: Path) -> None:
        """The run is over, and its report lies there."""
