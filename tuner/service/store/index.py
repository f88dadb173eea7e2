"""All that the folders of the service tell: what the database is an index of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.client.resources import Job, Proposal, Schedule, Target
from tuner.service.job_folder import SubmissionKey


@dataclass(frozen=True)
class IndexedJob:
    """A job as its folder tells it.

    Attributes:
        job: The job.
        key: The idempotency key of its submission.
        lease: The lease of its process; None: it has none.
    """

    job: Job
    key: SubmissionKey | None = None
    lease: str | None = None


@dataclass(frozen=True)
class Index:
    """The content of the folders.

    Attributes:
        jobs: The jobs.
        targets: The targets.
        schedules: The schedules, each of one of these targets.
        proposals: The proposals.
        last_job: The highest number of any folder, also of one that cannot be read.
    """

    jobs: Sequence[IndexedJob] = ()
    targets: Sequence[Target] = ()
    schedules: Sequence[Schedule] = ()
    proposals: Sequence[Proposal] = ()
    last_job: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not (self.jobs or self.targets or self.schedules or self.proposals)
