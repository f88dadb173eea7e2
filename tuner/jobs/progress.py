"""The interface of what follows a run: displays, and the file of its events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Concatenate, ParamSpec

from tuner.cluster.host_changes import HostChange
from tuner.core.errors import TritontuneError
from tuner.core.loads import Load
from tuner.core.slo import SLO
from tuner.jobs.event_words import dropped_in_words, requeued_in_words
from tuner.jobs.events import Phase
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.recommend import Recommendation
from tuner.recommend.rounds import elimination_in_words
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

    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        """A trial begins.

        Args:
            number: Its number. A trial that was requeued begins a second time.
            words: Its candidate in words.
            slot: The name of its slot; empty: the run has only one.
        """

    def level_began(self, load: Load, *, trial: int | None = None) -> None:
        """The measurement of a load level begins. Without a number, it is of the only trial under way."""

    def point_measured(self, point: OperatingPoint, *, trial: int | None = None) -> None:
        """A load level was measured. Without a number, it is of the only trial under way."""

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """A trial is stored; `recommendation` is the recommendation of the study now."""

    def trial_dropped(self, number: int, reason: str) -> None:
        """A trial ends without a result, and does not count; unless overridden, this is a note."""
        self.note(dropped_in_words(number, reason))

    def launch_began(self, slot: str, words: str) -> None:
        """A launch that is no trial begins on a slot, such as a round of verification; `words` describes it.

        Not called where the run has only one slot.
        """

    def launch_ended(self, slot: str) -> None:
        """What `launch_began` told of has ended, whatever its outcome."""

    def requeued(self, work: str, slot: str, reason: str, *, trial: int | None = None) -> None:
        """The slot of some work was lost, and another host will do it; unless overridden, this is a note.

        Args:
            work: The work in words, such as `trial 12`.
            slot: The slot that was lost.
            reason: How, in one line.
            trial: The number of the trial; None: the work is no trial.
        """
        del trial
        self.note(requeued_in_words(work, slot, reason))

    def host_changed(self, change: HostChange) -> None:
        """A host was admitted, left out, lost or drained, or is back; unless overridden, this is a note."""
        self.note(str(change))

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


@dataclass(frozen=True)
class ProgressOfTrial:
    """The progress of one trial's work (`tuner.measure.work.TrialProgress`), among others under way.

    Attributes:
        progress: Receives it.
        trial: The number of the trial.
    """

    progress: Progress
    trial: int

    def level_began(self, load: Load) -> None:
        """A load level is about to be measured."""
        self.progress.level_began(load, trial=self.trial)

    def point_measured(self, point: OperatingPoint) -> None:
        """A load level was measured."""
        self.progress.point_measured(point, trial=self.trial)


_Arguments = ParamSpec("_Arguments")


def _one_at_a_time(
    method: Callable[Concatenate[Progresses, _Arguments], None],
) -> Callable[Concatenate[Progresses, _Arguments], None]:
    """A method that runs while no other one does."""

    @wraps(method)
    def alone(self: Progresses, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        with self._alone:
            method(self, *args, **kwargs)

    return alone


class Progresses(Progress):
    """Passes all events on to several receivers, in order. Threads may share it.

    Executors report from threads of their own. A lock lets them in one at a time, so receivers need not be
    thread-safe. A queue, emptied by the thread that decides, would show nothing while it computes a proposal.

    Args:
        receivers: The receivers.
    """

    def __init__(self, *receivers: Progress) -> None:
        self._receivers = receivers
        # Receivers may call it again, as a note that events cannot be written does.
        self._alone = RLock()

    @_one_at_a_time
    def note(self, text: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.note(text)

    @_one_at_a_time
    def pulling(self, pull: Pull) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.pulling(pull)

    @_one_at_a_time
    def run_began(self) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.run_began()

    @_one_at_a_time
    def phase_began(self, phase: Phase) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.phase_began(phase)

    @_one_at_a_time
    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.model_began(model, study=study, budget_s=budget_s)

    @_one_at_a_time
    def measurement_began(self, model: str, slo: SLO) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.measurement_began(model, slo)

    @_one_at_a_time
    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.trial_began(number, words, slot)

    @_one_at_a_time
    def level_began(self, load: Load, *, trial: int | None = None) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.level_began(load, trial=trial)

    @_one_at_a_time
    def point_measured(self, point: OperatingPoint, *, trial: int | None = None) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.point_measured(point, trial=trial)

    @_one_at_a_time
    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.trial_ended(result, recommendation)

    @_one_at_a_time
    def trial_dropped(self, number: int, reason: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.trial_dropped(number, reason)

    @_one_at_a_time
    def launch_began(self, slot: str, words: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.launch_began(slot, words)

    @_one_at_a_time
    def launch_ended(self, slot: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.launch_ended(slot)

    @_one_at_a_time
    def requeued(self, work: str, slot: str, reason: str, *, trial: int | None = None) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.requeued(work, slot, reason, trial=trial)

    @_one_at_a_time
    def host_changed(self, change: HostChange) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.host_changed(change)

    @_one_at_a_time
    def eliminated(self, trial: int, load: Load, reason: str) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.eliminated(trial, load, reason)

    @_one_at_a_time
    def results_changed(self, recommendation: Recommendation) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.results_changed(recommendation)

    @_one_at_a_time
    def model_ended(self, outcome: ModelOutcome) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.model_ended(outcome)

    @_one_at_a_time
    def model_failed(self, model: str, error: TritontuneError) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.model_failed(model, error)

    @_one_at_a_time
    def reported(self, path: Path) -> None:
        """See `Progress`."""
        for each in self._receivers:
            each.reported(path)
