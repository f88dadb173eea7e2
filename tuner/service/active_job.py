"""A job that has a process, or whose process has just ended: what its events tell, and what its row lacks of it."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from tuner.client.resources import FINAL, Job, JobState
from tuner.jobs.event_log import EventLog, EventTail
from tuner.jobs.events import StateChanged
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.job_folder import JobFolder
from tuner.service.job_process import Clearing, JobProcess
from tuner.service.job_view import JobView
from tuner.service.place import INTERRUPTED
from tuner.service.store.jobs import ACTIVE, UNFINISHED
from tuner.service.store.store import Store

_log = logging.getLogger(__name__)

PARTIAL = "cancelled; what was measured is kept"
"""The reason of a job that was cancelled after it had started."""

_MOST_ATTEMPTS = 2


class ActiveJob:
    """One job.

    Args:
        folder: Its folder.
        row: The job as it is stored.
        process: Its process.

    Attributes:
        process: Its process.
        clearing: The removal of what its process has left, while it is at work.
        clear_until: When that must have ended, by the runner's clock.
        clear_after: When to try it again.
        is_clear: Whether nothing is left.
        pressed: How many signals its process got, for its present state.
        pressed_since: When the first of them was due.
        shares: Slots that share cores with it, as the slots were others when it started.
    """

    def __init__(self, folder: JobFolder, row: Job, process: JobProcess | None = None) -> None:
        self.folder = folder
        self.process = process or JobProcess(folder)
        self.clearing: Clearing | None = None
        self.clear_until = self.clear_after = 0.0
        self.is_clear = False
        self.pressed = 0
        self.pressed_since = 0.0
        self._pressed_for: JobState | None = None
        self.shares: tuple[str, ...] = ()
        self._row = row
        self._log = EventLog(folder.path)
        self._tail = EventTail(folder.path)
        self._view = JobView()
        self._problem = ""
        self._host, self._slots = row.host, row.slots
        self._started_at: datetime | None = None
        self._first_started_at = row.started_at

    @property
    def id(self) -> int:
        """The id of the job."""
        return self.folder.id

    @property
    def job(self) -> Job:
        """The job as it is stored."""
        return self._row

    @property
    def told(self) -> Job:
        """The job as its events tell it."""
        return self._row.model_copy(update=self._wanted())

    @property
    def state(self) -> JobState:
        """The state by the events."""
        return self._view.state.state if self._view.state else self._row.state

    @property
    def attempt(self) -> int:
        """The attempt by the events."""
        return self._view.state.attempt if self._view.state else self._row.attempt

    @property
    def has_process(self) -> bool:
        """Whether, by its events, it has a process, or had one that did not end it."""
        return self.state in ACTIVE

    @property
    def held(self) -> tuple[str, ...]:
        """The names of all that it holds, which it does until its process has ended: that may take a while."""
        return (*self._slots, *self.shares)

    def about(self) -> str:
        """What it is, in words: `mlp, running since 14:05 UTC`."""
        what = ", ".join(self._row.models[:3]) or self._row.target or self._row.kind
        since = f", running since {self._started_at:%H:%M} UTC" if self._started_at else ""
        return f"{what}{since}"

    def look(self) -> None:
        """Read the new events."""
        for event in self._tail.new():
            self._view.fold(event)
            if isinstance(event, StateChanged):
                self._problem = ""
                if event.state == "starting":
                    self._host, self._slots, self._started_at = event.host, event.slots, event.at
                    self._first_started_at = self._first_started_at or event.at

    def must_end(self, now: float) -> None:
        """Note that its process must end, as its state says.

        Args:
            now: The runner's clock.
        """
        if self._pressed_for != self.state:
            self._pressed_for, self.pressed, self.pressed_since = self.state, 0, now

    def tell(self, problem: str) -> None:
        """Say in the row why it does not go on; empty: it does."""
        if problem and problem != self._problem:
            _log.warning("job %d: %s", self.id, problem)
        self._problem = problem

    def change_state(self, state: JobState, reason: str = "", **fields: Any) -> bool:
        """Write a change of the state, unless it has ended. Returns whether it was written.

        Raises:
            OSError: it cannot be written.
        """
        written = self._log.change_state(state=state, reason=reason, **{"attempt": self.attempt, **fields})
        self.look()
        return written is not None

    def conclude(self) -> None:
        """Write the state after the end of the process, which did not write a final one.

        Raises:
            OSError: it cannot be written.
        """
        how = self.process.end_in_words or "it ended without a result"
        if self.state == "cancelling":
            self.change_state("cancelled", PARTIAL, exit_code=INTERRUPTED)
        elif self.process.lease is None and not self.process.is_ours:
            self.change_state("queued", "the service ended before the process of the job began")
        elif self.attempt < _MOST_ATTEMPTS:
            self.change_state("queued", f"its process was lost ({how}); resuming", attempt=self.attempt + 1)
        else:
            self.change_state("lost", f"its process was lost {self.attempt} times ({how})")

    def store_in(self, store: Store) -> None:
        """Bring the row up to date.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        lease = str(self.process.lease or "") or None if self.has_process else None
        changes = {name: value for name, value in self._wanted().items() if getattr(self._row, name) != value}
        if not changes:
            return
        try:
            self._row = store.change_job(self.id, among=UNFINISHED, lease=lease, **changes)
        except (NotFoundError, ConflictError) as error:
            # Somebody has removed or changed the row; the events stay the truth.
            _log.warning("job %d: its row is not brought up to date: %s", self.id, error)

    def _wanted(self) -> dict[str, Any]:
        """The fields of the row that the events tell."""
        state = self._view.state
        if state is None:
            return {"reason": self._problem or self._row.reason}
        is_final = state.state in FINAL
        return {
            "state": state.state,
            "reason": self._problem or state.reason,
            "attempt": state.attempt,
            "phase": self._view.phase,
            "progress": self._view.progress,
            "results": self._view.results,
            "host": None if state.state == "queued" else self._host,
            "slots": self._slots if self.has_process else (),
            "started_at": self._first_started_at,
            "ended_at": state.at if is_final else None,
            "exit_code": state.exit_code if is_final else None,
        }

    def leave(self) -> None:
        """Follow its process no longer."""
        self.process.leave()
        if self.clearing:
            self.clearing.close()
            self.clearing = None
