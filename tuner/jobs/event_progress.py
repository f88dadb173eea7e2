"""Writes the events of a run or a job to its `events.jsonl`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from tuner.cluster.host_changes import HostChange
from tuner.core.boundary import in_one_line
from tuner.core.errors import InterruptedRunError, TritontuneError, shortened
from tuner.core.loads import Load
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.redaction import without_known_secrets
from tuner.core.slo import SLO
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import (
    ArtifactWritten,
    BestChanged,
    FinalistEliminated,
    HostChanged,
    JobState,
    ModelBegan,
    ModelEnded,
    ModelResult,
    NightEnded,
    Noted,
    Numbered,
    Phase,
    PhaseBegan,
    PointMeasured,
    PointVerified,
    SlotChanged,
    StateChanged,
    TrialBegan,
    TrialDropped,
    TrialEnded,
    WorkRequeued,
    final_state,
)
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import excess_memory
from tuner.recommend.recommend import Recommendation
from tuner.recommend.verification import Verification
from tuner.results.points_json import judged_point_json, load_json
from tuner.results.result_files import BEST_CONFIG, BEST_DIFF, FRONT, TRIALS
from tuner.servers.docker.pull import Pull
from tuner.space.candidate import in_words
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

_BASELINE = "the baseline"


class EventProgress(Progress):
    """Writes events. Use it as a context manager, whose end writes the final state.

    A result is never lost because events cannot be written: that is noted once, and the work goes on. Results that the
    file lacks are written with the next ones.

    Args:
        log: The file.
        note: Takes the message that events cannot be written.
        resumes: Whether the work is an attempt of its own. If not, the last state tells which attempt it is.
        waits: Whether the folder is open only from `run_began` on; earlier events are kept until then.

    Attributes:
        failures: Errors of the models that failed, by name.
    """

    def __init__(self, log: EventLog, note: Callable[[str], None], *, resumes: bool, waits: bool) -> None:
        self.failures: dict[str, TritontuneError] = {}
        self._log, self._note, self._resumes = log, note, resumes
        self._waiting: list[tuple[type[Numbered], dict[str, Any]]] | None = [] if waits else None
        self._attempt = 1
        self._has_noted = self._is_stalled = self._has_ended = False
        self._model: _Model | None = None
        self._pulled: set[str] = set()

    @classmethod
    def of_run(cls, folder: RunFolder, note: Callable[[str], None]) -> EventProgress:
        """The events of a run in its folder, which `run_began` opens. A resumed run is another attempt."""
        return cls(EventLog(folder.path), note, resumes=True, waits=True)

    @classmethod
    def of_job(cls, folder: Path, note: Callable[[str], None]) -> EventProgress:
        """The events of a job in its folder, whose last state tells the attempt."""
        return cls(EventLog(folder), note, resumes=False, waits=False)

    def __enter__(self) -> Self:
        if self._waiting is None:
            self._start(datetime.now(timezone.utc))
        else:
            self._began = datetime.now(timezone.utc)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended(*self._end_by(error))

    def ended(self, exit_code: int, reason: str = "") -> None:
        """Write the final state, unless it is written.

        An interrupted job has none yet: the service writes it when nothing of the job is left.

        Args:
            exit_code: The exit code of the command with the same options.
            reason: Why, in one line.
        """
        if self._has_ended or self._waiting is not None:
            return
        self._has_ended = True
        if self._resumes or exit_code != InterruptedRunError.exit_code:
            self._change(final_state(exit_code), reason=shortened(reason), exit_code=exit_code)

    def _end_by(self, error: BaseException | None) -> tuple[int, str]:
        """The exit code and the reason of an end by an error."""
        if error is None:
            return 0, ""
        if isinstance(error, TritontuneError):
            return error.exit_code, str(error)
        if isinstance(error, KeyboardInterrupt):
            return InterruptedRunError.exit_code, "interrupted"
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            return code, "; ".join(f"{model}: {failure}" for model, failure in self.failures.items() if code)
        return 1, f"unexpected {in_one_line(error)}"

    def run_began(self) -> None:
        """See `Progress`."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._start(self._began)
            for kind, fields in waiting:
                self._write(kind, **fields)
        self._change("running", among=("starting",))

    def _start(self, at: datetime) -> None:
        """Write that the work starts, unless the last state says so."""
        last = self._last_state()
        if self._resumes:
            self._attempt = last.attempt + 1 if last else 1
        elif last:
            self._attempt = last.attempt
            if last.state != "queued":
                return
        self._write(StateChanged, state="starting", attempt=self._attempt, at=at)

    def note(self, text: str) -> None:
        """See `Progress`."""
        self._write(Noted, text=_line(text))

    def pulling(self, pull: Pull) -> None:
        """See `Progress`."""
        words = f"pulled {pull.image}" if pull.ended else f"pulling {pull.image}"
        if words not in self._pulled:
            self._pulled.add(words)
            self.note(words)

    def phase_began(self, phase: Phase) -> None:
        """See `Progress`."""
        model = self._model.name if self._model and phase != "report" else None
        self._write(PhaseBegan, phase=phase, model=model)

    def model_began(self, model: str, *, study: Study, budget_s: float) -> None:
        """See `Progress`."""
        identity = study.identity
        self._model = _Model(model, identity.objective, study)
        self._began_model(identity.slo, identity.percentile, budget_s)
        if study.trials:
            self._recall(self._model)
            self._tell(self._model, study.recommendation)

    def measurement_began(self, model: str, slo: SLO) -> None:
        """See `Progress`."""
        self._model = _Model(model)
        self._began_model(slo, slo.percentile, None)
        self.phase_began("measurement")

    def _began_model(self, slo: SLO, percentile: str, budget_s: float | None) -> None:
        if model := self._model:
            self._write(
                ModelBegan,
                model=model.name,
                slo=str(slo) if slo.root else "",
                percentile=percentile,
                objective=model.objective.name,
                budget_s=budget_s,
            )

    def trial_began(self, number: int, words: str, slot: str = "") -> None:
        """See `Progress`."""
        if self._model:
            self._model.trial = number
            self._write(TrialBegan, model=self._model.name, trial=number, candidate=words, slot=slot)

    def point_measured(self, point: OperatingPoint, *, trial: int | None = None) -> None:
        """See `Progress`."""
        if model := self._model:
            measured = judged_point_json(point, model.objective)
            number = model.trial if trial is None else trial
            self._write(PointMeasured, model=model.name, trial=number, point=measured)

    def trial_ended(self, result: TrialResult, recommendation: Recommendation) -> None:
        """See `Progress`."""
        del result  # the study has it
        self.results_changed(recommendation)

    def trial_dropped(self, number: int, reason: str) -> None:
        """See `Progress`."""
        if self._model:
            self._write(TrialDropped, model=self._model.name, trial=number, reason=_line(reason))

    def launch_began(self, slot: str, words: str) -> None:
        """See `Progress`."""
        self._write(SlotChanged, model=self._model and self._model.name, slot=slot, work=_line(words))

    def launch_ended(self, slot: str) -> None:
        """See `Progress`."""
        self._write(SlotChanged, model=self._model and self._model.name, slot=slot, work=None)

    def requeued(self, work: str, slot: str, reason: str, *, trial: int | None = None) -> None:
        """See `Progress`."""
        model = self._model and self._model.name
        self._write(WorkRequeued, model=model, trial=trial, work=_line(work), slot=slot, reason=_line(reason))

    def host_changed(self, change: HostChange) -> None:
        """See `Progress`."""
        told = {**asdict(change), "reason": _line(change.reason), "description": _line(change.description)}
        self._write(HostChanged, **told)

    def eliminated(self, trial: int, load: Load, reason: str) -> None:
        """See `Progress`."""
        if self._model:
            fields = {"trial": trial, "load": load_json(load), "reason": _line(reason)}
            self._write(FinalistEliminated, model=self._model.name, **fields)

    def results_changed(self, recommendation: Recommendation) -> None:
        """See `Progress`."""
        if self._model:
            self._tell(self._model, recommendation)

    def model_ended(self, outcome: ModelOutcome) -> None:
        """See `Progress`."""
        model = self._model_of(outcome.model, outcome.study)
        self._tell(model, outcome.recommendation)
        result = model_result(model.name, outcome.recommendation).model_copy(update={"ended": outcome.ended})
        self._write(ModelEnded, model=model.name, result=result)
        folder = outcome.folder.model(outcome.model)
        for name in (FRONT, TRIALS, BEST_CONFIG, BEST_DIFF):
            if (folder / name).is_file():
                self._written(folder / name)

    def model_failed(self, model: str, error: TritontuneError) -> None:
        """See `Progress`."""
        self.failures[model] = error
        told = self._model.best if self._model and self._model.name == model else None
        failed = (told or ModelResult(model=model, trial=None)).model_copy(update={"failure": shortened(str(error))})
        self._write(ModelEnded, model=model, result=failed)

    def reported(self, path: Path) -> None:
        """See `Progress`."""
        self._written(path)

    def night_ended(self, model: str, night: dict[str, Any]) -> None:
        """The night of a model has ended; `night` is an entry of `jobs` in its report."""
        self._write(NightEnded, model=model, night=night)

    def _model_of(self, name: str, study: Study) -> _Model:
        if self._model is None or self._model.name != name:
            self._model = _Model(name, study.identity.objective, study)
        return self._model

    def _recall(self, model: _Model) -> None:
        """Recall what earlier attempts have written of a model."""
        try:
            for event in self._log.read():
                if isinstance(event, TrialEnded) and event.model == model.name:
                    model.trials.add(event.trial)
                elif isinstance(event, PointVerified) and event.model == model.name:
                    model.verified[event.trial, str(event.load)] = event.rounds, event.confirming, event.failure
                elif isinstance(event, BestChanged) and event.model == model.name:
                    model.best = event.best
        except OSError as error:
            self._cannot(error)

    def _tell(self, model: _Model, recommendation: Recommendation) -> None:
        """Write what the study has and the file lacks."""
        if (study := model.study) is None:
            return
        for trial in study.trials:
            if trial.number not in model.trials and self._write(TrialEnded, **_trial_fields(model, study, trial)):
                model.trials.add(trial.number)
        for verified in study.verified:
            key = verified.trial, str(load_json(verified.load))
            now = len(verified.rounds), len(verified.confirming), verified.failure
            if model.verified.get(key) != now and self._write(PointVerified, **_verified_fields(model, verified)):
                model.verified[key] = now
        best = model_result(model.name, recommendation)
        if best != model.best and self._write(BestChanged, model=model.name, best=best):
            model.best = best

    def _written(self, path: Path) -> None:
        within = os.path.relpath(path, self._log.path.parent)
        if not within.startswith(".."):
            self._write(ArtifactWritten, path=within)

    def _last_state(self) -> StateChanged | None:
        try:
            return self._log.last_state()
        except OSError as error:
            self._cannot(error)
            return None

    def _change(self, state: JobState, *, among: tuple[JobState, ...] | None = None, **fields: Any) -> None:
        try:
            self._log.change_state(among=among, state=state, attempt=self._attempt, **fields)
        except OSError as error:
            self._cannot(error)

    def _write(self, kind: type[Numbered], **fields: Any) -> bool:
        """Write an event, or keep it until the folder is open. Returns whether it was written."""
        fields.setdefault("at", datetime.now(timezone.utc))
        if self._waiting is not None:
            self._waiting.append((kind, fields))
            return True
        if self._is_stalled:
            return False
        try:
            self._log.append(kind, **fields)
        except OSError as error:
            self._cannot(error)
            return False
        return True

    def _cannot(self, error: OSError) -> None:
        """Note once that events cannot be written."""
        # A process that holds the lock would delay each event, and so the measurements.
        self._is_stalled |= error.errno == errno.ETIMEDOUT
        # A folder that is gone was removed because nothing was measured.
        if not self._has_noted and self._log.path.parent.is_dir():
            self._has_noted = True
            self._note(f"{self._log.path}: cannot be written: {error.strerror}; the results are not affected")


class _Model:
    """A model, and what was written of it.

    Attributes:
        name: Its name.
        objective: The objective.
        study: Its study; None: it is measured, not tuned.
        trial: Number of the current trial; None: none began.
        trials: Numbers of the trials that were written.
        verified: Numbers of rounds, and failure, of the verifications that were written, by trial and load.
        best: The best configuration that was written.
    """

    def __init__(self, name: str, objective: Objective = THROUGHPUT, study: Study | None = None) -> None:
        self.name, self.objective, self.study = name, objective, study
        self.trial: int | None = None
        self.trials: set[int] = set()
        self.verified: dict[tuple[int, str], tuple[int, int, str | None]] = {}
        self.best: ModelResult | None = None


def model_result(model: str, recommendation: Recommendation) -> ModelResult:
    """The best configuration of a model, by the recommendation of its study."""
    best, percentile = recommendation.best, recommendation.percentile
    if best is None:
        return ModelResult(model=model, trial=None, percentile=percentile)
    return ModelResult(
        model=model,
        trial=best.trial.number,
        load=load_json(best.point.load),
        throughput=best.point.throughput,
        latency_ms=best.point.latency_ms[percentile],
        percentile=percentile,
        gain=recommendation.gain,
        verified=best.verified,
    )


def _line(text: str) -> str:
    """A text for a field of an event: short, and without secrets."""
    return without_known_secrets(shortened(text))


def _trial_fields(model: _Model, study: Study, trial: TrialResult) -> dict[str, Any]:
    failure = trial.failure
    return {
        "model": model.name,
        "trial": trial.number,
        "candidate": in_words(trial.parameters, study.trials[0].parameters) if trial.number else _BASELINE,
        "parameters": dict(trial.parameters),
        "points": [judged_point_json(point, model.objective) for point in trial.curve],
        "failure": failure and shortened(failure.message),
        "cause": failure and failure.cause.value,
        "last_words": failure.last_words if failure else "",
        "usable": failure is None and excess_memory(trial, study.identity.max_gpu_memory) <= 0,
        "imported": trial.imported,
        "wall_s": trial.wall_s,
        "host": trial.host,
    }


def _verified_fields(model: _Model, verified: Verification) -> dict[str, Any]:
    point = verified.point
    return {
        "model": model.name,
        "trial": verified.trial,
        "load": load_json(verified.load),
        "rounds": len(verified.rounds),
        "confirming": len(verified.confirming),
        "point": point and judged_point_json(point, model.objective, verified=True),
        "failure": verified.failure,
    }
