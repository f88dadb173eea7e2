"""What is done once for each job that has ended: its improvements become proposals."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.core.boundary import in_one_line
from tuner.core.errors import TritontuneError
from tuner.service.errors import StoreUnavailableError
from tuner.service.job_folder import JobFolder
from tuner.service.proposals import ENDED, ProposalDesk
from tuner.service.store.jobs import JobFilter
from tuner.service.store.store import Store

_log = logging.getLogger(__name__)

# Not shown as a file of the job.
_DONE = ".ended"
# So many of the newest jobs are looked at when the service starts.
_NEWEST = 500
# Between two tries while the database does not answer, in seconds.
_AGAIN_S = 5.0


class Endings:
    """Does what a job that has ended leaves to do, in a thread: reading a study takes a while.

    While the database does not answer, it is tried again.

    Args:
        store: The rows.
        jobs: The folder of the jobs' folders.
        desk: Makes the proposals.
    """

    def __init__(self, store: Store, jobs: Path, desk: ProposalDesk) -> None:
        self._store, self._jobs, self._desk = store, jobs, desk
        self._ended: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def job_ended(self, job_id: int) -> None:
        """Say that a job has ended. Returns at once."""
        self._ended.put(job_id)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread as long as the context lasts. It begins with what services before this one have left."""
        thread = threading.Thread(target=self._run, name="endings", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.put(None)
            thread.join()

    def do(self, job_id: int) -> None:
        """Do it for one job, if it has ended by itself and it is not done yet.

        Raises:
            TritontuneError: its results cannot be read, or the database does not answer.
            OSError: a file cannot be written.
        """
        job, marker = self._store.job(job_id), JobFolder.of(self._jobs, job_id).path / _DONE
        if job.state not in ENDED or marker.exists():
            return
        for proposal in self._desk.of_job(job):
            _log.info("job %s: proposal %s for model %s", job_id, proposal.id, proposal.model)
        marker.touch()

    def catch_up(self) -> list[str]:
        """Do it for the newest jobs that ended while no service ran, and finish what the desk has begun.

        Returns:
            What was done or failed, one line each.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        lines = self._desk.catch_up()
        for job in self._store.jobs(JobFilter(states=sorted(ENDED)), limit=_NEWEST).items:
            lines += self._tried(job.id)
        return lines

    def _run(self) -> None:
        is_behind = True
        while True:
            try:
                if is_behind:
                    _tell(self.catch_up())
                    is_behind = False
                job_id = self._ended.get()
                if job_id is None:
                    return
                _tell(self._tried(job_id))
            except StoreUnavailableError as error:
                _tell([str(error)])
                is_behind = True
                if self._is_told_to_end(_AGAIN_S):
                    return
            except Exception:  # noqa: BLE001 (jobs that end later need the thread)
                _log.exception("unexpected error")
                is_behind = False

    def _is_told_to_end(self, within_s: float) -> bool:
        """Wait, unless the service ends. Jobs that end meanwhile are found by the next look at the newest ones."""
        deadline = time.monotonic() + within_s
        try:
            while self._ended.get(timeout=max(0.0, deadline - time.monotonic())) is not None:
                pass
        except queue.Empty:
            return False
        return True

    def _tried(self, job_id: int) -> list[str]:
        """Do it for one job. Returns why it failed; it is tried again when the service starts.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        try:
            self.do(job_id)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 (one job must not keep the others from their proposals)
            expected = isinstance(error, TritontuneError)
            if not expected:
                _log.exception("job %s: unexpected error", job_id)
            return [f"job {job_id}: no proposals: {error if expected else in_one_line(error)}"]
        return []


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        _log.warning("%s", line)
