"""The interface of progress displays."""

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
        folder: The folder of the run.
        model: The name of the model.
        study: Its study.
        recommendation: The recommendation for the study's SLO.
        ended: Why the search ended.
    """

    folder: RunFolder
    model: str
    study: Study
    recommendation: Recommendation
    ended: str


class Progress:
    """Receives the events of a run. The base class ignores them; `tuner.report` has the displays for terminals."""

    def note(self, text: str) -> None:
        """A message for the user."""

    def pulling(self, pull: Pull) -> None:
        """The Docker engine pulls an image; called for each step."""

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """The tuning of a model begins or is resumed."""

    def trial_began(self, number: int, words: str) -> None:
        """A trial begins; `words` describes its candidate."""

    def level_began(self, load: Load) -> None:
        """The measurement of a load level begins."""

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """A trial is stored; `recommendation` is the recommendation of the study now."""

    def model_ended(self, outcome: ModelOutcome) -> None:
        """The tuning of a model has ended."""

    def model_failed(self, model: str, error: TritontuneError) -> None:
        """The tuning of a model failed. If it had measured something, `model_ended` was called before."""

    def reported(self, path: Path) -> None:
        """The run has ended, and its report was written to `path`."""
