"""Runs the work of a job, in its process, and writes its final event."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tuner.api import tune
from tuner.client.resources import JobKind
from tuner.core.boundary import boundary
from tuner.core.errors import TritontuneError
from tuner.core.quantities import counted
from tuner.jobs.event_progress import EventProgress
from tuner.jobs.measuring import run_measurement
from tuner.jobs.progress import Progresses
from tuner.nightly.night_progress import NightProgress
from tuner.options.measure_job import MeasureJob
from tuner.options.tune_job import TuneJob
from tuner.results.words import slo_in_words
from tuner.service.job_folder import JobFolder
from tuner.service.place import Place
from tuner.service.policy import AllowList
from tuner.service.secrets import Secrets, with_secrets
from tuner.service.settings import ServiceSettings
from tuner.service.work import SOURCE, Ending, Work, pinned, say, window_left_s
from tuner.study.run_folder import RunFolder


def run(folder: JobFolder, place: Place) -> int:
    """Run a job, and write its final event, unless it was interrupted.

    Returns:
        The exit code of the command with the same options.
    """
    folder.error_log.unlink(missing_ok=True)
    with EventProgress.of_job(folder.path, say) as events:
        try:
            with boundary(folder.path):
                ending = _ending(folder, place, events)
        except TritontuneError as error:
            ending = Ending(error.exit_code, str(error))
        say(ending.reason or "done")
        events.ended(ending.exit_code, ending.reason)
    return ending.exit_code


def _ending(folder: JobFolder, place: Place, events: EventProgress) -> Ending:
    if place.cores:
        _stay_on(place.cores)
    record = folder.read()
    say(f"job {record.job.id}: {record.job.kind}")
    window_s = window_left_s(record)
    options = with_secrets(record.job.job, _secrets())
    if place.gpus is not None:
        options["gpus"] = place.gpus
    if options.get("url") is not None and place.config:
        AllowList(ServiceSettings.read(place.config), Secrets((), {})).check_hosts(options)
    events.run_began()
    return _KINDS[record.job.kind](Work(folder, record, options, place, events, window_s))


def _stay_on(cores: frozenset[int]) -> None:
    """Use these cores only, with all threads, as libraries may have some already, and in all later processes."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has ended
            os.sched_setaffinity(int(thread.name), cores)


def _secrets() -> Mapping[str, str]:
    """The secrets of the job, which come through stdin, so that neither its environment nor a file holds them."""
    text = "" if sys.stdin.isatty() else sys.stdin.read()
    secrets: Mapping[str, str] = json.loads(text) if text else {}
    return secrets


def _tune(work: Work) -> Ending:
    job = TuneJob.make(work.options, source=SOURCE)
    job = job.model_copy(update=pinned(job, work.place.cores))
    out = RunFolder(work.folder.run)
    result = tune(job, out=out, resume=out.database.exists(), progress=Progresses(NightProgress(say), work.events))
    if result.failures:
        first = next(iter(result.failures.values()))
        return Ending(first.exit_code, f"{counted(list(result.failures), 'model')} failed: {first}")
    without = [outcome.model for outcome in result.outcomes if outcome.recommendation.best is None]
    if without:
        return Ending(3, f"no candidate of {', '.join(without)} {slo_in_words(job.slo, job.objective)}")
    return Ending(0)


def _nightly(work: Work) -> Ending:
    from tuner.service.night_work import run_night_job  # noqa: PLC0415 (other jobs start sooner without it)

    return run_night_job(work)


def _measure(work: Work) -> Ending:
    job = MeasureJob.make(work.options, source=SOURCE)
    job = job.model_copy(update=pinned(job, work.place.cores))
    run_measurement(job, work.folder.run, Progresses(NightProgress(say), work.events))
    return Ending(0)


_KINDS: Mapping[JobKind, Callable[[Work], Ending]] = {"tune": _tune, "nightly": _nightly, "measure": _measure}
