"""`tritontune nightly`: runs a night of tuning, or checks its job file."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from tuner.core.boundary import boundary
from tuner.core.errors import JobError
from tuner.core.json_text import json_text
from tuner.core.objectives import THROUGHPUT
from tuner.core.quantities import format_duration
from tuner.nightly.history import History
from tuner.nightly.jobs import JobsFile
from tuner.nightly.tasks import Task, tasks_of
from tuner.nightly.web import WebError, check_reachable


def print_schema() -> None:
    """Print the JSON schema of job files."""
    from tuner.nightly.jobs import jobs_schema  # noqa: PLC0415 (only needed here)

    click.echo(json_text(jobs_schema(), indent=1))


def check(path: Path, *, as_json: bool) -> None:
    """Print what a night would do.

    Raises:
        JobError: the job file is wrong, or a job of it cannot run; the message is one line.
    """
    file = JobsFile.read(path)
    tasks = tasks_of(file, path, _say)
    for number, target in enumerate(file.notify):
        where = f"{path}: notify[{number}]"
        if target.url:
            try:
                check_reachable(target.url)
            except WebError as error:
                raise JobError(f"{where}: {error}") from None
        elif target.file and not target.file.parent.is_dir():
            raise JobError(f"{where}: file: there is no folder {target.file.parent}")
        elif target.file and target.file.is_dir():
            raise JobError(f"{where}: file: {target.file} is a folder; name a file in it")
    try:
        place = History.checked(file.history_url)
    except JobError as error:
        raise JobError(f"{path}: {error}") from None
    if as_json:
        jobs = [{"repository": str(task.repository.path), "model": task.model.name} for task in tasks]
        click.echo(json_text({"schema": 1, "ok": True, "jobs": jobs}))
        return
    for task in tasks:
        click.echo(_in_words(task))
    click.echo(f"history: {place}; window for all jobs: {format_duration(file.window)}")


def _in_words(task: Task) -> str:
    job = task.job
    slo = f"SLO {job.slo}" if job.slo.root else "no SLO"
    budget = format_duration(job.budget)
    action = f"action {job.action} if the gain's lower bound exceeds {task.min_gain:.1%}"
    goal = "" if job.objective == THROUGHPUT else f"{job.objective}, "
    return f"{task.name}: {goal}{slo}, budget {budget}, {action}"


def nightly(path: Path, *, as_json: bool) -> None:
    """Run a night, and exit with the code of its worst result.

    Raises:
        JobError: the job file is wrong, or another night is running.
    """
    from tuner.nightly.night import run_night  # noqa: PLC0415 (takes 1 s; errors in the file are reported before)
    from tuner.nightly.notify import report_json  # noqa: PLC0415 (the same)

    file = JobsFile.read(path)
    tasks = tasks_of(file, path, _say)
    with boundary(file.work):
        report = run_night(file, tasks, _say)
    if as_json:
        click.echo(json_text(report_json(report), indent=1))
    sys.exit(report.exit_code)


def _say(text: str) -> None:
    """Print a line with the time."""
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)
