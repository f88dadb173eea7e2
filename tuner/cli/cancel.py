"""`tritontune cancel`: cancels a job of the service."""

from __future__ import annotations

from tuner.cli.followed_job import follow, print_job
from tuner.cli.service import ServiceOptions
from tuner.core.errors import TuningError


def cancel(job: int, options: ServiceOptions, *, wait: bool, as_json: bool) -> None:
    """Cancel a job.

    Args:
        job: The job.
        options: The service.
        wait: Wait until its last server has ended.
        as_json: Print the job as JSON.

    Raises:
        ServiceError: the service refuses it, such as for a job that has ended.
        TuningError: the job ended otherwise before it could be cancelled.
    """
    with options.client() as client:
        cancelled = client.cancel(job)
        if wait and not cancelled.is_final:
            cancelled = follow(client, job, words=options.words)
        print_job(client, cancelled, as_json=as_json)
    if wait and cancelled.state != "cancelled":
        raise TuningError(f"job {job} was not cancelled: it has {cancelled.state}")
