"""The entry point of tuning for users: runs a job, and writes its result files and its report."""

from __future__ import annotations

from tuner.jobs import tuning
from tuner.jobs.progress import Progress
from tuner.jobs.tuning import RunResult
from tuner.options.tune_job import TuneJob
from tuner.report.html.page import write_report
from tuner.study.run_folder import RunFolder


def tune(
    job: TuneJob, *, out: RunFolder | None = None, resume: bool = False, progress: Progress | None = None
) -> RunResult:
    """Tune every model of a job, one after the other, and write `report.html`.

    Args:
        job: The job.
        out: Folder for the results; None: a new folder, named by the time.
        resume: Continue with the studies that `out` holds.
        progress: Receives the events of the run.

    Raises:
        UsageError: the job, the repository, or the only model's input is wrong.
        TuningError: no model could be tuned; with a single model, its error.
        InterruptedRunError: Ctrl-C; all finished trials are stored and written.
    """
    return tuning.tune(job, write_report=write_report, out=out, resume=resume, progress=progress)
