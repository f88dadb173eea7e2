"""The folder of a job, `DATA/jobs/12/`: the truth about it, of which the database is an index."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tuner.client.resources import Job, Policy, Resource
from tuner.core.atomic_file import write_atomically
from tuner.core.boundary import LOG
from tuner.core.errors import JobError
from tuner.core.lease import Lease
from tuner.jobs.events import FILE
from tuner.service.documents import in_one_line, parsed

_NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True)
class SubmissionKey:
    """The idempotency key of a submission.

    Attributes:
        token: Id of the token that sent it; keys of different tokens are different.
        key: The key, up to 255 characters.
        digest: SHA-256 of the submission's body, in hex.
    """

    token: str
    key: str
    digest: str


class SubmissionRecord(Resource):
    """`submission.json`: a job as it was submitted. It is written before the job's row, and never changes.

    Attributes:
        schema_version: Counts breaking changes.
        job: The job as it was submitted, in the state `queued`; secrets are references.
        key: Its idempotency key.
        policy: What a night does with an improvement: the target's policy at that time.
        window_s: Time within which a night must end, in seconds; None: the default of nights.
    """

    schema_version: Literal[1] = 1
    job: Job
    key: SubmissionKey | None = None
    policy: Policy = Policy()
    window_s: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class JobFolder:
    """The folder of one job.

    Attributes:
        path: Its path; its name is the id of the job.
    """

    path: Path

    @classmethod
    def of(cls, jobs: Path, job_id: int) -> JobFolder:
        """The folder of a job.

        Raises:
            ValueError: the id is not one of a job.
        """
        if not _NUMBER.fullmatch(str(job_id)):
            raise ValueError(f"{job_id!r} is not the id of a job")
        return cls(jobs / str(job_id))

    @classmethod
    def all(cls, jobs: Path) -> list[JobFolder]:
        """The folders of all jobs, the oldest first. Whatever else lies there is left out."""
        if not jobs.is_dir():
            return []
        found = [path for path in jobs.iterdir() if _NUMBER.fullmatch(path.name) and path.is_dir()]
        return [cls(path) for path in sorted(found, key=lambda path: int(path.name))]

    @property
    def id(self) -> int:
        """The id of the job."""
        return int(self.path.name)

    @property
    def data(self) -> Path:
        """The data folder of the service."""
        return self.path.parent.parent

    @property
    def submission(self) -> Path:
        """The job as it was submitted: a `SubmissionRecord`."""
        return self.path / "submission.json"

    @property
    def events(self) -> Path:
        """The events of the job."""
        return self.path / FILE

    @property
    def log(self) -> Path:
        """What the job's process printed."""
        return self.path / "job.log"

    @property
    def error_log(self) -> Path:
        """The log of an unexpected error; it exists only if the process ended by one."""
        return self.path / LOG

    @property
    def run(self) -> Path:
        """The results: of a tuning job, its run folder."""
        return self.path / "run"

    @property
    def lock(self) -> Path:
        """The file that the job's process locks as long as it lives."""
        return self.path / ".process.lock"

    @property
    def lease_file(self) -> Path:
        """The lease of the job's process, which writes it first of all."""
        return self.path / ".lease"

    def write(self, record: SubmissionRecord) -> None:
        """Write the submission, in one step; makes the folder.

        Raises:
            OSError: it cannot be written.
        """
        write_atomically(self.submission, record.model_dump_json(indent=1) + "\n")

    def read(self) -> SubmissionRecord:
        """Read the submission.

        Raises:
            JobError: there is none, or it cannot be read.
        """
        try:
            return parsed(SubmissionRecord, self.submission.read_bytes())
        except OSError as error:
            raise JobError(f"{self.submission}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise JobError(f"{self.submission}: {in_one_line(error)}") from None

    def lease(self) -> Lease | None:
        """The lease of the last process of the job; None: it had none, or its file cannot be read."""
        try:
            return Lease.parse(self.lease_file.read_text(encoding="ascii").strip())
        except (OSError, UnicodeDecodeError):
            return None

    def is_running(self) -> bool:
        """Whether the process of the job lives, on any host that shares the folder."""
        with self.claimed() as descriptor:
            return descriptor is None

    @contextmanager
    def claimed(self) -> Iterator[int | None]:
        """Hold the lock of the job's process within the context, and pass it on to a process that inherits it.

        The kernel releases the lock when the last process with this descriptor has ended, so a job never has two
        processes, whenever the service is killed.

        Yields:
            The descriptor of the lock; None: a process has it.

        Raises:
            OSError: the folder cannot be written to, or its file system has no locks.
        """
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)

    def artifact(self, name: str) -> Path | None:
        """A file that users may read, by its path within the folder; None: there is none.

        Links that lead out of the folder, and hidden files, are not served.
        """
        parts = name.split("/")
        if "\0" in name or not all(parts) or any(part.startswith(".") for part in parts):
            return None
        try:
            path = (self.path / name).resolve(strict=True)
        except (OSError, RuntimeError):  # missing, a loop of links, or a name too long
            return None
        inside = path.is_relative_to(self.path.resolve()) and path.is_file()
        return path if inside else None
