"""The work of a job, in its process: tune, a night, or a measurement, and the final event."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuner.api import tune
from tuner.client.resources import Job, JobKind
from tuner.core.boundary import boundary
from tuner.core.errors import TritontuneError
from tuner.core.interrupts import is_ending
from tuner.core.quantities import counted
from tuner.core.redaction import without_secrets
from tuner.jobs.event_progress import EventProgress
from tuner.jobs.progress import Progresses
from tuner.nightly.jobs import JobsFile, NightlyJob
from tuner.nightly.night import run_night
from tuner.nightly.night_progress import NightProgress
from tuner.nightly.outcome import NightReport
from tuner.nightly.tasks import tasks_of
from tuner.options.groups import ServerOptions
from tuner.options.tune_job import TuneJob
from tuner.results.words import slo_in_words
from tuner.servers.contradictions import asking_for_docker
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.place import INTERRUPTED, Place
from tuner.service.secrets import with_secrets
from tuner.service.settings import ServiceSettings
from tuner.study.run_folder import RunFolder

# The source of the options in error messages.
_SOURCE = "job"


@dataclass(frozen=True)
class Ending:
    """How the work of a job ended.

    Attributes:
        exit_code: Exit code of the command with the same options.
        reason: Why, in one line; empty: all went well.
    """

    exit_code: int
    reason: str = ""


@dataclass(frozen=True)
class _Work:
    """What a kind of job needs."""

    folder: JobFolder
    record: SubmissionRecord
    options: Mapping[str, Any]
    place: Place
    events: EventProgress


def run(folder: JobFolder, place: Place) -> int:
    """Run a job, and write its final event, unless it was interrupted.

    Returns:
        The exit code of the command with the same options.
    """
    folder.error_log.unlink(missing_ok=True)
    with EventProgress.of_job(folder.path, _say) as events:
        try:
            with boundary(folder.path):
                ending = _ending(folder, place, events)
        except TritontuneError as error:
            ending = Ending(error.exit_code, str(error))
        _say(ending.reason or "done")
        events.ended(ending.exit_code, ending.reason)
    return ending.exit_code


def _ending(folder: JobFolder, place: Place, events: EventProgress) -> Ending:
    if place.cores:
        os.sched_setaffinity(0, place.cores)
    record = folder.read()
    _say(f"job {record.job.id}: {record.job.kind}")
    options = with_secrets(record.job.job, _secrets())
    if place.gpus is not None:
        options["gpus"] = place.gpus
    events.run_began()
    return _KINDS[record.job.kind](_Work(folder, record, options, place, events))


def _secrets() -> Mapping[str, str]:
    """The secrets of the job, which come through stdin, so that neither its environment nor a file holds them."""
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    secrets: Mapping[str, str] = json.loads(text) if text else {}
    return secrets


def _tune(work: _Work) -> Ending:
    job = TuneJob.make(work.options, source=_SOURCE)
    job = job.model_copy(update=_pinned(job, work.place.cores))
    out = RunFolder(work.folder.run)
    result = tune(job, out=out, resume=out.database.exists(), progress=Progresses(NightProgress(_say), work.events))
    if result.failures:
        first = next(iter(result.failures.values()))
        return Ending(first.exit_code, f"{counted(list(result.failures), 'model')} failed: {first}")
    without = [outcome.model for outcome in result.outcomes if outcome.recommendation.best is None]
    if without:
        return Ending(3, f"no candidate of {', '.join(without)} {slo_in_words(job.slo, job.objective)}")
    return Ending(0)


def _nightly(work: _Work) -> Ending:
    def say(text: str) -> None:
        _say(text)
        work.events.note(text)

    record = work.record
    entry = NightlyJob.make({**record.policy.model_dump(), **work.options}, source=_SOURCE)
    entry = entry.model_copy(update=_pinned(entry, work.place.cores))
    settings = ServiceSettings.read(work.place.config) if work.place.config else ServiceSettings()
    file = JobsFile.make(
        {
            "jobs": (entry,),
            "work": (nights := nights_of(work.folder, record.job)),
            "history": str(nights.parent / "history.db"),
            "notify": settings.notify,
            **({"window": f"{record.window_s:.0f}s"} if record.window_s else {}),
        },
        source=_SOURCE,
    )
    report = run_night(file, tasks_of(file, Path(_SOURCE), say), say)
    _keep(report, work.folder)
    return Ending(INTERRUPTED) if is_ending() else Ending(report.exit_code, report.summary)


def nights_of(folder: JobFolder, job: Job) -> Path:
    """The work folder of the nights of a job's target; of a job without a target, that of its repository."""
    if job.target:
        return folder.data / "nightly" / job.target
    where = str(job.repository or job.job.get("repository"))
    # Names of targets do not begin so.
    return folder.data / "nightly" / f"_{sha256(where.encode()).hexdigest()[:12]}"


def _keep(report: NightReport, folder: JobFolder) -> None:
    """Copy the folder of the night into the job's folder, which outlives the nights that are kept."""
    night = next((Path(model.folder).parents[1] for model in report.jobs if model.folder), None)
    if night is not None and night.is_dir():
        shutil.copytree(night, folder.run, dirs_exist_ok=True)


_KINDS: Mapping[JobKind, Callable[[_Work], Ending]] = {"tune": _tune, "nightly": _nightly}


def _pinned(job: ServerOptions, cores: frozenset[int]) -> dict[str, Any]:
    """The options that keep a container on the cores of the slot, as only processes inherit them."""
    in_docker = job.server == "docker" or asking_for_docker(job)
    if not cores or not in_docker or "cpuset_cpus" in job.docker_arg:
        return {}
    return {"docker_arg": {**job.docker_arg, "cpuset_cpus": ",".join(map(str, sorted(cores)))}}


def _say(text: str) -> None:
    """Print a line into the job's log."""
    print(time.strftime("%H:%M:%S"), without_secrets(text), flush=True)  # noqa: T201 (its log is stdout)
