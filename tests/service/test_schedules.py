from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.stored import T0, job, schedule, target

from tuner.client.resources import Job, Schedule, Submission
from tuner.core.errors import JobError
from tuner.service.errors import StoreUnavailableError
from tuner.service.schedules import Scheduler, Start
from tuner.service.store.store import Store

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Nights:
    """Schedules at 02:00 UTC, a clock, and what they start."""

    def __init__(self, store: Store) -> None:
        self.store, self.now = store, T0
        store.clock = lambda: self.now
        self.starts: list[Start] = []
        self.refusal: Exception | None = None
        self.scheduler = Scheduler(store, self.submit, lambda: self.now)
        store.put_target("edge", target())

    def submit(self, start: Start) -> Job:
        if self.refusal:
            raise self.refusal
        self.starts.append(start)
        return self.store.add_job(job(self.store.next_job_id(), kind="nightly", schedule=start.schedule.name))

    def put(self, **fields: Any) -> Schedule:
        return self.store.put_schedule("nights", schedule(**{"window": "4h", **fields}))

    def step(self, at: datetime) -> int:
        """Let the scheduler look, as if it was down until then. Returns the number of jobs that it starts."""
        self.now = at
        return len(self.scheduler.step())

    @property
    def schedule(self) -> Schedule:
        return self.store.schedule("nights")

    def end(self, number: int) -> None:
        self.store.change_job(number, among=["queued"], state="succeeded")


@pytest.fixture
def nights(tmp_path: Path) -> Iterator[Nights]:
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
        yield Nights(store)


def test_a_job_is_started_once_when_its_time_has_come(nights: Nights) -> None:
    nights.put(priority=3)
    assert nights.step(T0 + 2 * HOUR - MINUTE) == 0
    assert nights.step(T0 + 2 * HOUR) == 1
    assert nights.step(T0 + 2 * HOUR + MINUTE) == 0
    (start,) = nights.starts
    assert start.submission == Submission(kind="nightly", target="edge", priority=3)
    assert start.window_s == 4 * 3600
    now = nights.schedule
    assert (now.last_job, now.next_at, now.note, now.version) == (1, T0 + 26 * HOUR, "", 1)


def test_each_night_has_its_own_key(nights: Nights) -> None:
    nights.put()
    for day in range(2):
        nights.step(T0 + (24 * day + 2) * HOUR)
        nights.end(day + 1)
    assert len({start.key for start in nights.starts}) == 2


def test_a_start_that_was_not_recorded_has_the_same_key(nights: Nights) -> None:
    """A kill between the submission and its record leads to the same job, by its key."""
    made = nights.put()
    nights.step(T0 + 2 * HOUR)
    nights.end(1)
    nights.store.advance_schedule(made, next_at=made.next_at)
    nights.step(T0 + 2 * HOUR + MINUTE)
    first, second = nights.starts
    assert first.key == second.key


def test_a_missed_start_is_made_up_for_within_its_window(nights: Nights) -> None:
    nights.put()
    assert nights.step(T0 + 5 * HOUR) == 1
    assert nights.starts[0].window_s == 3600
    assert nights.schedule.note == "started 3h00m late, planned for 2026-01-01 02:00 UTC"
    assert nights.schedule.next_at == T0 + 26 * HOUR
    nights.end(1)
    assert nights.step(T0 + 26 * HOUR) == 1
    assert nights.schedule.note == ""


def test_a_missed_start_is_left_out_when_its_window_is_over(nights: Nights) -> None:
    nights.put()
    assert nights.step(T0 + 6 * HOUR) == 0
    now = nights.schedule
    assert now.note == "left out the start of 2026-01-01 02:00 UTC: missed, and its window is over"
    assert (now.next_at, now.last_job) == (T0 + 26 * HOUR, None)


def test_many_missed_starts_give_one_job(nights: Nights) -> None:
    nights.put()
    assert nights.step(T0 + (10 * 24 + 3) * HOUR) == 1
    assert nights.schedule.note == "started 1h00m late, planned for 2026-01-11 02:00 UTC"
    assert nights.schedule.next_at == T0 + (11 * 24 + 2) * HOUR


def test_a_start_is_left_out_while_the_job_before_goes_on(nights: Nights) -> None:
    nights.put()
    nights.step(T0 + 2 * HOUR)
    assert nights.step(T0 + 26 * HOUR) == 0
    assert nights.schedule.note == "left out the start of 2026-01-02 02:00 UTC: job 1 is queued"
    assert nights.schedule.last_job == 1
    nights.end(1)
    assert nights.step(T0 + 50 * HOUR) == 1


def test_jobs_of_others_do_not_matter(nights: Nights) -> None:
    nights.put()
    nights.store.add_job(job(7, state="running", schedule="others", target="edge"))
    assert nights.step(T0 + 2 * HOUR) == 1


def test_a_disabled_schedule_starts_nothing_and_makes_up_for_nothing(nights: Nights) -> None:
    nights.put(enabled=False)
    assert nights.step(T0 + 3 * HOUR) == 0
    nights.put()
    assert nights.step(T0 + 3 * HOUR) == 0
    assert nights.schedule.next_at == T0 + 26 * HOUR


def test_a_refused_job_is_a_note(nights: Nights) -> None:
    nights.put()
    nights.refusal = JobError("repository: /models: is not allowed")
    assert nights.step(T0 + 2 * HOUR) == 0
    assert nights.schedule.note == "left out the start of 2026-01-01 02:00 UTC: repository: /models: is not allowed"
    assert nights.schedule.next_at == T0 + 26 * HOUR


def test_without_its_database_a_start_is_only_late(nights: Nights) -> None:
    nights.put()
    nights.refusal = StoreUnavailableError("down")
    with pytest.raises(StoreUnavailableError):
        nights.step(T0 + 2 * HOUR)
    nights.refusal = None
    assert nights.step(T0 + 2 * HOUR + MINUTE) == 1


def test_a_schedule_that_was_changed_meanwhile_keeps_the_change(nights: Nights) -> None:
    nights.put()
    submit = nights.submit

    def changing(start: Start) -> Job:
        nights.store.put_schedule("nights", schedule("0 5 * * *"))
        return submit(start)

    scheduler = Scheduler(nights.store, changing, lambda: nights.now)
    nights.now = T0 + 2 * HOUR
    assert len(scheduler.step()) == 1
    assert nights.schedule.next_at == T0 + 5 * HOUR


@pytest.mark.parametrize("month", [3, 10])
def test_the_clock_changes_twice_a_year(nights: Nights, month: int) -> None:
    """Ten nights around the change, looked at every ten minutes in the small hours: one a date, all punctual."""
    nights.now = first = datetime(2026, month, 23, tzinfo=timezone.utc)
    nights.put(cron="30 2 * * *", timezone="Europe/Berlin")
    for day in range(10):
        for look in range(2 * 6):
            nights.step(first + day * 24 * HOUR + look * 10 * MINUTE)
        assert len(nights.starts) == day + 1
        assert nights.schedule.note == ""
        nights.end(day + 1)


def test_an_unexpected_error_of_one_schedule_leaves_the_others(nights: Nights) -> None:
    nights.put()
    nights.store.put_schedule("a-broken-one", schedule())
    submit = nights.submit

    def fails(start: Start) -> Job:
        if start.schedule.name == "a-broken-one":
            raise ZeroDivisionError("oops")
        return submit(start)

    nights.now = T0 + 2 * HOUR
    assert len(Scheduler(nights.store, fails, lambda: nights.now).step()) == 1
    assert "unexpected ZeroDivisionError: oops" in nights.store.schedule("a-broken-one").note


def test_it_runs_in_a_thread(nights: Nights) -> None:
    nights.put()
    nights.now = T0 + 2 * HOUR
    started = threading.Event()
    submit = nights.submit

    def told(start: Start) -> Job:
        started.set()
        return submit(start)

    with Scheduler(nights.store, told, lambda: nights.now).running():
        assert started.wait(60)
    assert nights.schedule.last_job == 1
