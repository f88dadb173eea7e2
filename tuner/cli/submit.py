"""`tritontune submit`: submits a job to the service, and waits for its end if asked to."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import ValidationError

from tuner.cli.followed_job import end_as, follow, print_job
from tuner.cli.service import ServiceOptions
from tuner.client.resources import JobKind, Submission
from tuner.core.errors import InterruptedRunError, JobError
from tuner.jobs.stored_job import with_absolute_paths
from tuner.options.tune_job import TuneJob


def submit(
    file: Path | None,
    options: ServiceOptions,
    *,
    kind: JobKind,
    target: str | None,
    priority: int,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit a job.

    Args:
        file: The job file; None: the job of the target.
        options: The service.
        kind: The kind of the job.
        target: Target whose options are the defaults.
        priority: Jobs of a higher priority start first.
        wait: Print the events until the job has ended, and exit as `tritontune run`.
        as_json: Print the job as JSON on stdout, at the end.

    Raises:
        TritontuneError: the job file is wrong, the service refuses the job, or, with `wait`, the job failed.
    """
    if file is None and target is None:
        raise JobError("submit needs a job file or a target: tritontune submit JOB.yaml, or --target NAME")
    job = with_absolute_paths(TuneJob.options_in(file)) if file else {}
    try:
        submission = Submission(kind=kind, job=job, target=target, priority=priority)
    except ValidationError as error:
        raise JobError(f"--target: {error.errors()[0]['ctx']['error']}") from None
    with options.client() as client:
        submitted = client.submit(submission)
        if not wait:
            print_job(client, submitted, as_json=as_json)
            return
        try:
            ended = follow(client, submitted.id, words=options.words)
        except InterruptedRunError:
            if as_json:  # who reads it needs the number to cancel the job
                print_job(client, submitted, as_json=True)
            raise
        print_job(client, ended, as_json=as_json)
    sys.exit(end_as(ended))
