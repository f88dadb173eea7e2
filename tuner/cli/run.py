"""`tritontune run`: tune, show it, and say what was found."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.core.boundary import boundary
from tuner.core.errors import JobError, SLOError
from tuner.options.tune_job import TuneJob


def run(job_file: Path | None, options: Mapping[str, Any], out: Path | None, *, resume: bool) -> None:
    """Tune what a job file and the options ask for.

    Raises:
        TritontuneError: with the exit code that says how it ended.
    """
    if resume and out is None:
        raise JobError("--resume needs --out, the folder of the run to go on with")
    job = _resumed(job_file, options, out) if resume and out else _new(job_file, options)
    # Most of a second, which nobody should wait to be told of a slip of the hand.
    from rich.console import Console  # noqa: PLC0415

    from tuner.api import tune  # noqa: PLC0415
    from tuner.report.console import ConsoleProgress  # noqa: PLC0415
    from tuner.report.results_console import results_console  # noqa: PLC0415
    from tuner.results.words import what_is_asked  # noqa: PLC0415
    from tuner.study.run_folder import RunFolder  # noqa: PLC0415

    folder = RunFolder(out) if out else RunFolder.default()
    with boundary(folder.path), ConsoleProgress(Console(stderr=True), results_console(), job.slo) as progress:
        result = tune(job, out=folder, resume=resume, progress=progress)
    if result.failures:
        sys.exit(next(iter(result.failures.values())).exit_code)
    if without := [o.model for o in result.outcomes if o.recommendation.best is None]:
        raise SLOError(f"no candidate of {', '.join(without)} {what_is_asked(job.slo)}")


def _new(job_file: Path | None, options: Mapping[str, Any]) -> TuneJob:
    return TuneJob.read(job_file, options) if job_file else TuneJob.make(options)


def _resumed(job_file: Path | None, options: Mapping[str, Any], out: Path) -> TuneJob:
    """What the run was asked for; what is given again must say the same, or be something that may change."""
    from tuner.jobs.stored_job import resumed_job  # noqa: PLC0415 (as above)
    from tuner.study.run_folder import RunFolder  # noqa: PLC0415 (as above)

    given = {**(TuneJob.options_in(job_file) if job_file else {}), **options}
    return resumed_job(RunFolder.existing(out).job, given)
