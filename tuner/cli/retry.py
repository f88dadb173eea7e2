"""`tritontune retry`: submits a job of the service again."""

from __future__ import annotations

from tuner.cli.followed_job import print_job
from tuner.cli.service import ServiceOptions


def retry(job: int, options: ServiceOptions, *, as_json: bool) -> None:
    """Submit a job again, with the same options, as a new job.

    Raises:
        ServiceError: the service refuses it.
    """
    with options.client() as client:
        print_job(client, client.retry(job), as_json=as_json)
