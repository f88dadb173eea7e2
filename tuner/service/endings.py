"""What is done once for each job that has ended: its row gets the results, and its improvements become proposals."""

from __future__ import annotations

import logging
from pathlib import Path

from tuner.client.resources import FINAL
from tuner.core.errors import TritontuneError
from tuner.service.job_folder import JobFolder
from tuner.service.job_view import JobViews
from tuner.service.proposals import ProposalDesk
from tuner.service.store.jobs import JobFilter
from tuner.service.store.store import Store

_log = logging.getLogger(__name__)

# Not shown as a file of the job.
_DONE = ".ended"
# So many of the newest jobs are looked at when the service starts.
_NEWEST = 500


class Endings:
    """Does what a job that has ended leaves to do.

    Args:
        store: The rows.
        jobs: The folder of the jobs' folders.
        views: What the events of jobs tell.
        desk: Makes the proposals.
    """

    def __init__(self, store: Store, jobs: Path, views: JobViews, desk: ProposalDesk) -> None:
        self._store, self._jobs, self._views, self._desk = store, jobs, views, desk

    def job_ended(self, job_id: int) -> None:
        """Do it for one job. Does nothing if that is done, or if the job has not ended.

        A failure is logged. It is tried again when the service starts.
        """
        try:
            self._do(job_id)
        except (TritontuneError, OSError) as error:
            _log.warning("job %s: its results are not stored: %s", job_id, error)

    def catch_up(self) -> None:
        """Do it for the newest jobs that ended while no service ran.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        for job in self._store.jobs(JobFilter(states=sorted(FINAL)), limit=_NEWEST).items:
            if not self._marker(job.id).exists():
                self.job_ended(job.id)
        self._store.check()

    def _do(self, job_id: int) -> None:
        job = self._store.job(job_id)
        if not job.is_final or self._marker(job_id).exists():
            return
        view = self._views.of(job_id)
        if (job.progress, job.results) != (view.progress, view.results):
            job = self._store.change_job(job_id, among=FINAL, progress=view.progress, results=view.results)
        for proposal in self._desk.of_job(job):
            _log.info("job %s: proposal %s for model %s", job_id, proposal.id, proposal.model)
        self._marker(job_id).touch()

    def _marker(self, job_id: int) -> Path:
        return JobFolder.of(self._jobs, job_id).path / _DONE
