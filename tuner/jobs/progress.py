"""The interface of what follows a run: displays, and the file of its events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.core.errors import TritontuneError
from tuner.core.loads import Load
from tuner.core.slo import SLO
from tuner.jobs.events import Phase
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.recommend import Recommendation
from tuner.recommend.verify import elimination_in_words
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

    def run_began(self) -> None:
        """The run begins: its folder is open, and servers can be launched. All but notes and pulls come later."""

    def phase_began(self, phase: Phase) -> None:
        """A phase of the current model begins, or, of `report`, of the whole run."""

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """The tuning of a model begins or is resumed."""

    def measurement_began(self, model: str, slo: SLO) -> None:
        """The measurement of a model begins, without tuning it."""

    def trial_began(self, number: int, words: str) -> None:
        """A trial begins; `words` describes its candidate."""

    def level_began(self, load: Load) -> None:
        """The measurement of a load level begins."""

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """A trial is stored; `recommendation` is the recommendation of the study now."""

    def eliminated(self, trial: int, load: Load, reason: str) -> None:
        """A finalist cannot win any more under a load; unless overridden, this is a note."""
        self.note(elimination_in_words(trial, load, reason))

    def results_changed(self, recommendation: Recommendation) -> None:
        """More results are stored, such as relaunches; `recommendation` is the recommendation of the study now."""

    def model_ended(self, outcome: ModelOutcome) -> None:
        """The tuning of a model has ended."""

    def model_failed(self, model: str, error: TritontuneError) -> None:
        """The tuning of a model failed. If it had measured something, `model_ended` was called before."""

    def reported(self, path: Path) -> None:
        """The run has ended, and its report was written to `path`."""


class Progresses(Progress):
    """Passes all events on to several receivers, in order.

    Args:
        receivers: The receivers.
    """

    def __init__(self, *receivers: Progress) -> None:
        self._receivers = receivers

    def note(self, text: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.note(text)

    def pulling(self, pull: Pull) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.pulling(pull)

    def run_began(self) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.run_began()

    def phase_began(self, phase: Phase) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.phase_began(phase)

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.model_began(model, study=study, budget_s=budget_s)

    def measurement_began(self, model: str, slo: SLO) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.measurement_began(model, slo)

    def trial_began(self, number: int, words: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.trial_began(number, words)

    def level_began(self, load: Load) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.level_began(load)

    def point_measured(self, point: OperatingPoint) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.point_measured(point)

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.trial_ended(result, recommendation)

    def eliminated(self, trial: int, load: Load, reason: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.eliminated(trial, load, reason)

    def results_changed(self, recommendation: Recommendation) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.results_changed(recommendation)

    def model_ended(self, outcome: ModelOutcome) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.model_ended(outcome)

    def model_failed(self, model: str, error: TritontuneError) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.model_failed(model, error)

    def reported(self, path: Path) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.reported(path)
