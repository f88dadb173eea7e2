"""Starts the jobs of schedules: by the clock, once each, and never two of one schedule at the same time."""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from tuner.client.resources import Job, Schedule, Submission
from tuner.core.boundary import in_one_line
from tuner.core.errors import TritontuneError, shortened
from tuner.core.quantities import format_duration
from tuner.service.cron import next_start, window_of
from tuner.service.errors import StoreUnavailableError
from tuner.service.store.database import Clock, utc_now
from tuner.service.store.jobs import UNFINISHED, JobFilter
from tuner.service.store.store import Store
from tuner.service.threads import running

_log = logging.getLogger(__name__)

_LOOK_S = 5.0
# A start that comes this late was not delayed by more than the time between two looks.
_PUNCTUAL = timedelta(minutes=1)


@dataclass(frozen=True)
class Start:
    """A start of a schedule's job.

    Attributes:
        schedule: The schedule.
        submission: What is submitted.
        key: The idempotency key: a start that was not recorded before a crash gives the same job again.
        window_s: The time that is left of the window, in seconds.
    """

    schedule: Schedule
    submission: Submission
    key: str
    window_s: float


class Submit(Protocol):
    """Submits the job of a start."""

    def __call__(self, start: Start) -> Job:
        """Submit it; any `TritontuneError` is the reason why it is left out."""
        ...


class Scheduler:
    """Starts the jobs of schedules.

    A start that was missed, as the service was down, is made up for within its window; several missed starts give one
    job. A start is left out, with a note in the schedule, if its window is over, if the job before it has not ended, or
    if its job is refused.

    Args:
        store: The schedules and jobs.
        submit: Submits a job.
        clock: The time, UTC.
    """

    def __init__(self, store: Store, submit: Submit, clock: Clock = utc_now) -> None:
        self._store, self._submit, self._clock = store, submit, clock

    def step(self, now: datetime | None = None) -> tuple[Job, ...]:
        """Start what is due.

        Args:
            now: The time; None: that of the clock.

        Returns:
            The submitted jobs.

        Raises:
            StoreUnavailableError: the database does not answer. What was not started is started later.
        """
        now = self._clock() if now is None else now
        jobs = (self._start(schedule, now) for schedule in self._store.due_schedules(now))
        return tuple(job for job in jobs if job)

    def running(self) -> AbstractContextManager[None]:
        """Start what is due, in a thread, as long as the context lasts."""
        return running(self._run, "schedules")

    def _run(self, stop: threading.Event) -> None:
        while True:
            try:
                self.step()
            except StoreUnavailableError as error:
                _log.warning("schedules: %s", error)
            except Exception:  # noqa: BLE001 (the next look may find all in order)
                _log.exception("schedules: unexpected error")
            if stop.wait(_LOOK_S):
                return

    def _start(self, schedule: Schedule, now: datetime) -> Job | None:
        planned = schedule.next_at or now
        window = window_of(schedule)
        changes: dict[str, Any] = {"next_at": next_start(schedule, now), "note": ""}
        if planned <= now - window:
            # The newest of several missed starts may still be in time.
            later = next_start(schedule, now - window)
            if later > now:
                changes["note"] = f"left out the start of {_in_words(planned)}: missed, and its window is over"
                self._store.advance_schedule(schedule, **changes)
                return None
            planned = later
        if earlier := self._unfinished(schedule):
            changes["note"] = f"left out the start of {_in_words(planned)}: job {earlier.id} is {earlier.state}"
            self._store.advance_schedule(schedule, **changes)
            return None
        try:
            job = self._submit(_start_of(schedule, planned, planned + window - now))
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 (one schedule must not end all others)
            why = str(error)
            if not isinstance(error, TritontuneError):
                _log.exception("schedule %s: unexpected error", schedule.name)
                why = f"unexpected {in_one_line(error)}"
            changes["note"] = shortened(f"left out the start of {_in_words(planned)}: {why}")
            self._store.advance_schedule(schedule, **changes)
            return None
        if (late := now - planned) > _PUNCTUAL:
            changes["note"] = f"started {format_duration(late.total_seconds())} late, planned for {_in_words(planned)}"
        self._store.advance_schedule(schedule, last_job=job.id, **changes)
        return job

    def _unfinished(self, schedule: Schedule) -> Job | None:
        """A job of the schedule that has not ended."""
        found = self._store.jobs(JobFilter(states=UNFINISHED, schedule=schedule.name), limit=1).items
        return found[0] if found else None


def _start_of(schedule: Schedule, planned: datetime, left: timedelta) -> Start:
    submission = Submission(kind=schedule.kind, target=schedule.target, priority=schedule.priority)
    # The start of another version of the schedule is another one.
    key = f"{schedule.name}/{schedule.created_at.isoformat()}/{planned.isoformat()}"
    return Start(schedule, submission, key, left.total_seconds())


def _in_words(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
