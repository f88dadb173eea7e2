"""`tritontune run`: tunes models, and shows the progress and the result."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.core.boundary import boundary
from tuner.core.errors import JobError, SLOError, TritontuneError
from tuner.options.tune_job import TuneJob

if TYPE_CHECKING:
    from tuner.jobs.event_progress import EventProgress
    from tuner.report.console import ConsoleProgress
    from tuner.study.run_folder import RunFolder


def run(
    job_file: Path | None,
    options: Mapping[str, Any],
    out: Path | None,
    *,
    resume: bool,
    verbose: bool = False,
    as_json: bool = False,
) -> None:
    """Tune the models of a job file and of the options.

    Args:
        job_file: Path of the job file; None: options alone.
        options: By the names of `TuneJob`; they override the job file.
        out: Folder for the results; None: a new one, named by the time.
        resume: Continue the run in `out`.
        verbose: Print the whole result, not only its most important lines.
        as_json: Print the result as JSON on stdout, and everything else on stderr.

    Raises:
        TritontuneError: the run failed; the error's exit code tells how.
    """
    if resume and out is None:
        raise JobError("--resume needs --out, the folder of the run to continue")
    job = _resumed(job_file, options, out) if resume and out else _new(job_file, options)
    # These imports take most of a second, and an error in the options should be reported without them.
    from rich.console import Console  # noqa: PLC0415

    from tuner.jobs.event_progress import EventProgress  # noqa: PLC0415
    from tuner.report.console import ConsoleProgress  # noqa: PLC0415
    from tuner.report.results_console import results_console  # noqa: PLC0415
    from tuner.study.run_folder import RunFolder  # noqa: PLC0415

    folder = RunFolder(out) if out else RunFolder.default()
    console = Console(stderr=True)
    progress = ConsoleProgress(console, console if as_json else results_console(), job.slo, verbose=verbose)
    with EventProgress.of_run(folder, progress.note) as events:
        try:
            _tune(job, folder, progress, events, resume=resume)
        except TritontuneError as error:
            _print_json(folder, progress, error, as_json=as_json)
            raise
        _print_json(folder, progress, None, as_json=as_json)
        if progress.failures:
            sys.exit(next(iter(progress.failures.values())).exit_code)


def _tune(job: TuneJob, folder: RunFolder, progress: ConsoleProgress, events: EventProgress, *, resume: bool) -> None:
    """Tune all models.

    Raises:
        SLOError: a model has no best config. A failed model takes precedence, with its own exit code.
        TritontuneError: no model could be tuned, or the run was interrupted.
    """
    from tuner.api import tune  # noqa: PLC0415 (see above)
    from tuner.jobs.progress import Progresses  # noqa: PLC0415 (see above)
    from tuner.results.words import slo_in_words  # noqa: PLC0415 (see above)

    with boundary(folder.path), progress:
        result = tune(job, out=folder, resume=resume, progress=Progresses(progress, events))
    without = [outcome.model for outcome in result.outcomes if outcome.recommendation.best is None]
    if without and not result.failures:
        raise SLOError(f"no candidate of {', '.join(without)} {slo_in_words(job.slo, job.objective)}")


def _print_json(folder: RunFolder, progress: ConsoleProgress, error: TritontuneError | None, *, as_json: bool) -> None:
    """Print the result, if `as_json` is set and at least one model was tuned or has failed."""
    if as_json and (progress.outcomes or progress.failures):
        from tuner.core.json_text import json_text  # noqa: PLC0415 (see above)
        from tuner.report.run_json import run_json  # noqa: PLC0415 (see above)

        document = run_json(folder, progress.outcomes, progress.failures, progress.report, error)
        click.echo(json_text(document, indent=1))


def _new(job_file: Path | None, options: Mapping[str, Any]) -> TuneJob:
    return TuneJob.read(job_file, options) if job_file else TuneJob.make(options)


def _resumed(job_file: Path | None, options: Mapping[str, Any], out: Path) -> TuneJob:
    """The stored job of a run, overridden by the given options; some of these must have their stored value."""
    from tuner.jobs.stored_job import resumed_job  # noqa: PLC0415 (as above)
    from tuner.study.run_folder import RunFolder  # noqa: PLC0415 (as above)

    given = {**(TuneJob.options_in(job_file) if job_file else {}), **options}
    return resumed_job(RunFolder.existing(out).job, given)
