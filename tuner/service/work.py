"""What the kinds of jobs have in common, in their process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from tuner.core.errors import JobError
from tuner.core.quantities import format_duration
from tuner.core.redaction import without_secrets
from tuner.jobs.event_progress import EventProgress
from tuner.options.groups import ServerOptions
from tuner.servers.contradictions import asking_for_docker
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.place import Place

SOURCE = "job"
"""The source of the options in error messages."""


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
class Work:
    """The work of a job.

    Attributes:
        folder: Its folder.
        record: Its submission.
        options: Its options, with its secrets and the GPU of its slot.
        place: Where it runs.
        events: Receives its events.
        window_s: What is left of the window of its schedule, in seconds; None: there is none.
    """

    folder: JobFolder
    record: SubmissionRecord
    options: Mapping[str, Any]
    place: Place
    events: EventProgress
    window_s: float | None = None


def pinned(job: ServerOptions, cores: frozenset[int]) -> dict[str, Any]:
    """The options that keep a container on the cores of the slot, as only processes inherit them."""
    in_docker = job.server == "docker" or asking_for_docker(job)
    if not cores or not in_docker or "cpuset_cpus" in job.docker_arg:
        return {}
    return {"docker_arg": {**job.docker_arg, "cpuset_cpus": ",".join(map(str, sorted(cores)))}}


def window_left_s(record: SubmissionRecord) -> float | None:
    """What is left of a job's window after its time in the queue, in seconds; None: it has no window.

    Raises:
        JobError: nothing is left.
    """
    if record.window_s is None:
        return None
    waited_s = (datetime.now(timezone.utc) - record.job.created_at).total_seconds()
    if waited_s >= record.window_s:
        window, waited = format_duration(record.window_s), format_duration(waited_s)
        raise JobError(f"window: {window} was over before the job could start; it has waited for {waited}")
    return record.window_s - waited_s


def say(text: str) -> None:
    """Print a line into the job's log. A full disk must not end the job."""
    with suppress(OSError):
        print(time.strftime("%H:%M:%S"), without_secrets(text), flush=True)  # noqa: T201 (its log is stdout)
