"""A nightly job: one night of a target, with the decision, the action and the notifications of `tritontune nightly`."""

from __future__ import annotations

import shutil
from pathlib import Path

from tuner.core.interrupts import is_ending
from tuner.nightly.jobs import JobsFile, NightlyJob
from tuner.nightly.night import run_night
from tuner.nightly.outcome import NightReport
from tuner.nightly.tasks import tasks_of
from tuner.service.job_folder import JobFolder
from tuner.service.place import INTERRUPTED, nights_of
from tuner.service.settings import ServiceSettings
from tuner.service.work import SOURCE, Ending, Work, pinned, say


def run_night_job(work: Work) -> Ending:
    """Run one night.

    Raises:
        JobError: the options are wrong, or another night of the target is running.
    """

    def tell(text: str) -> None:
        say(text)
        work.events.note(text)

    record = work.record
    entry = NightlyJob.make({**record.policy.model_dump(), **work.options}, source=SOURCE)
    entry = entry.model_copy(update=pinned(entry, work.place.cores))
    settings = ServiceSettings.read(work.place.config) if work.place.config else ServiceSettings()
    file = JobsFile.make(
        {
            "jobs": (entry,),
            "work": (nights := nights_of(work.folder, record.job)),
            "history": str(nights.parent / "history.db"),
            "notify": settings.notify,
            **({} if work.window_s is None else {"window": f"{work.window_s:.3f}s"}),
        },
        source=SOURCE,
    )
    report = run_night(file, tasks_of(file, Path(SOURCE), tell), say, work.events)
    _keep(report, work.folder)
    return Ending(INTERRUPTED) if is_ending() else Ending(report.exit_code, report.summary)


def _keep(report: NightReport, folder: JobFolder) -> None:
    """Copy the folder of the night into the job's folder, which outlives the nights that are kept."""
    night = next((Path(model.folder).parents[1] for model in report.jobs if model.folder), None)
    if night is not None and night.is_dir():
        shutil.copytree(night, folder.run, dirs_exist_ok=True)
