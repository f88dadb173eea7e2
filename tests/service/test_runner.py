"""The runner, with real processes that do what a test says."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.command_line import await_that
from support.service_jobs import Bench, FakeClearing, bench, fake_command

from tuner.core.lease import own_lease
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import StateChanged
from tuner.service import job_process, runner
from tuner.service.errors import ConflictError, NotFoundError, StoreUnavailableError
from tuner.service.job_processes import processes_of
from tuner.service.slots import cpu_slots
from tuner.service.store.store import Store


@pytest.fixture(autouse=True)
def _workers_are_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_process, "command", fake_command)
    monkeypatch.setattr(runner, "Clearing", FakeClearing)


class Clock:
    """A clock that tests move on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def one(tmp_path: Path, clock: Clock) -> Iterator[Bench]:
    """A host with one slot."""
    with bench(tmp_path, clock=clock) as made:
        yield made


def _seqs(made: Bench, job_id: int) -> list[int]:
    return [event.seq for event in made.events(job_id)]


class TestAJob:
    def test_starts_runs_and_succeeds(self, one: Bench) -> None:
        number = one.submit("running", "hold", "succeed")
        one.runner.step()
        job = one.job(number)
        assert (job.state, job.host, job.slots) == ("starting", "here", ("cpu:0",))
        one.until(number, "running")
        one.go(number)
        job = one.until(number, "succeeded")
        assert (job.exit_code, job.slots, job.attempt) == (0, (), 1)
        assert job.started_at is not None
        assert job.ended_at is not None
        assert job.ended_at > job.started_at
        assert one.states(number) == ["queued", "starting", "running", "succeeded"]
        one.step_until(lambda: one.is_gone(number))

    def test_that_fails_is_not_tried_again(self, one: Bench) -> None:
        number = one.submit("running", "fail")
        job = one.until(number, "failed")
        one.step_until(lambda: one.is_gone(number))
        assert (job.exit_code, job.attempt) == (1, 1)
        assert one.states(number)[-1] == "failed"

    def test_gets_its_secrets_through_stdin_alone(self, one: Bench) -> None:
        number = one.submit("hold", "succeed", secrets={"KEY": "hush-hush-1"})
        one.runner.step()
        await_that(lambda: "hush-hush-1" in one.folder(number).log.read_text())
        lease = one.folder(number).lease()
        assert lease is not None
        for name in ("environ", "cmdline"):
            assert b"hush-hush-1" not in Path(f"/proc/{lease.pid}/{name}").read_bytes()

    def test_on_a_cluster_holds_it_and_no_slot_and_gets_its_token(self, one: Bench) -> None:
        on_cluster = {"executor": "ray", "ray_address": "head:6379"}
        first, second = one.submit("hold", **on_cluster), one.submit("hold", **on_cluster)
        local = one.submit("hold")
        one.runner.step()
        assert [one.job(number).slots for number in (first, local)] == [("cluster head:6379",), ("cpu:0",)]
        assert one.job(second).reason.startswith(f"cluster head:6379 is held by job {first}")
        await_that(lambda: all(one.folder(number).lease() for number in (first, local)))
        leases = [one.folder(number).lease() for number in (first, local)]
        environments = [Path(f"/proc/{lease.pid}/environ").read_bytes() for lease in leases if lease]
        assert [b"RAY_AUTH_TOKEN=t0ken" in environment for environment in environments] == [True, False]

    def test_leads_a_session_of_its_own_and_gets_no_terminal(self, one: Bench) -> None:
        number = one.submit("hold")
        one.runner.step()
        await_that(lambda: one.folder(number).lease() is not None)
        lease = one.folder(number).lease()
        assert lease is not None
        assert os.getsid(lease.pid) == lease.pid != os.getsid(0)

    def test_whose_folder_is_missing_fails(self, one: Bench) -> None:
        number = one.submit("succeed")
        one.folder(number).submission.unlink()
        one.folder(number).events.unlink()
        one.folder(number).path.rmdir()
        job = one.until(number, "failed")
        assert "its folder is missing" in job.reason


class TestTheQueue:
    def test_one_job_at_a_time_on_a_slot_and_the_others_say_what_they_wait_for(self, one: Bench) -> None:
        first, second = one.submit("running", "hold", "succeed"), one.submit("succeed")
        one.until(first, "running")
        one.runner.wake()
        one.runner.step()
        assert one.job(second).state == "queued"
        assert one.job(second).reason.startswith(f"cpu:0 is held by job {first} (mlp, running since ")
        assert one.runner.host().slots[0].job == first
        assert (one.runner.host().running, one.runner.host().queued) == (1, 1)
        one.go(first)
        one.until(second, "succeeded")
        assert one.job(second).reason == ""

    def test_a_higher_priority_starts_first(self, one: Bench) -> None:
        running = one.submit("hold", "succeed")
        one.runner.step()
        low, high = one.submit("succeed"), one.submit("succeed", priority=5)
        one.go(running)
        one.until(low, "succeeded")
        starts = {number: one.job(number).started_at for number in (low, high)}
        assert starts[high] < starts[low]  # type: ignore[operator]

    def test_two_slots_run_two_jobs(self, tmp_path: Path) -> None:
        with bench(tmp_path, slots=2) as two:
            jobs = [two.submit("running", "hold", "succeed") for _ in range(3)]
            for number in jobs[:2]:
                two.until(number, "running")
            assert {slot.job for slot in two.runner.host().slots} == set(jobs[:2])
            two.runner.wake()
            two.runner.step()
            assert two.job(jobs[2]).reason.count("is held by") == 2
            for number in jobs:
                two.go(number)
            two.until(jobs[2], "succeeded")


class TestCancelling:
    def test_a_queued_job_is_cancelled_at_once(self, one: Bench) -> None:
        running, queued = one.submit("hold", "succeed"), one.submit("succeed")
        one.runner.step()
        job = one.runner.cancel(queued)
        assert (job.state, job.reason) == ("cancelled", "cancelled before it started")
        assert one.states(queued) == ["queued", "cancelled"]
        one.go(running)
        one.until(running, "succeeded")
        one.runner.step()
        assert not one.folder(queued).log.exists()

    def test_a_job_is_cancelling_until_all_it_started_is_gone(self, one: Bench) -> None:
        number = one.submit("running", "spawn", "hold")
        one.until(number, "running")
        lease = one.folder(number).lease()
        assert lease is not None
        await_that(lambda: len(processes_of(lease)) == 3)
        assert one.runner.cancel(number).state == "cancelling"
        assert one.runner.cancel(number).state == "cancelling"
        assert one.job(number).slots == ("cpu:0",)
        job = one.until(number, "cancelled")
        assert processes_of(lease) == []
        assert (job.exit_code, job.slots) == (130, ())
        assert one.states(number) == ["queued", "starting", "running", "cancelling", "cancelled"]

    def test_one_that_is_just_starting(self, one: Bench) -> None:
        number = one.submit("hold")
        one.runner.step()
        one.runner.cancel(number)
        one.until(number, "cancelled")
        assert one.is_gone(number)

    def test_a_deaf_one_is_asked_twice_and_then_killed(self, one: Bench, clock: Clock) -> None:
        number = one.submit("deaf", "running", "hold")
        one.until(number, "running")
        one.runner.cancel(number)
        one.runner.step()
        clock.now += one.times.grace
        one.runner.step()
        assert one.job(number).state == "cancelling"
        clock.now += one.times.force - 1
        one.runner.step()
        assert one.folder(number).is_running()
        clock.now += 2
        job = one.until(number, "cancelled")
        assert job.exit_code == 130

    def test_what_cannot_be_removed_keeps_it_cancelling_and_is_said(self, one: Bench, clock: Clock) -> None:
        number = one.submit("running", "hold")
        one.until(number, "running")
        left = one.folder(number).path / "left"
        left.write_text("the Docker engine does not answer\n")
        one.runner.cancel(number)
        words = "leftovers cannot be removed: the Docker engine does not answer"
        one.step_until(lambda: one.job(number).reason == words)
        assert one.job(number).state == "cancelling"
        assert one.job(number).slots == ("cpu:0",)
        left.unlink()
        clock.now += one.times.again
        one.until(number, "cancelled")

    def test_what_has_ended_cannot_be_cancelled(self, one: Bench) -> None:
        number = one.submit("succeed")
        one.until(number, "succeeded")
        with pytest.raises(ConflictError, match=f"job {number} has ended: succeeded"):
            one.runner.cancel(number)
        with pytest.raises(NotFoundError, match="no job 99"):
            one.runner.cancel(99)

    def test_a_job_that_ends_at_that_moment_has_ended(self, one: Bench) -> None:
        number = one.submit("running", "hold", "succeed")
        one.until(number, "running")
        one.go(number)
        await_that(lambda: one.states(number)[-1] == "succeeded")
        with pytest.raises(ConflictError, match="has ended: succeeded"):
            one.runner.cancel(number)
        assert one.job(number).state == "succeeded"


class TestLostJobs:
    def test_a_lost_job_is_resumed_once_and_then_lost(self, one: Bench) -> None:
        number = one.submit("running", "crash")
        job = one.until(number, "lost")
        assert job.reason == "its process was lost 2 times (ended with exit code 7)"
        assert (job.attempt, job.exit_code, job.slots) == (2, None, ())
        states = [event for event in one.events(number) if isinstance(event, StateChanged)]
        assert [(event.state, event.attempt) for event in states] == [
            ("queued", 1), ("starting", 1), ("running", 1),
            ("queued", 2), ("starting", 2), ("running", 2), ("lost", 2),
        ]  # fmt: skip
        assert states[3].reason == "its process was lost (ended with exit code 7); resuming"
        assert one.ended == [number]

    def test_its_second_attempt_may_succeed(self, one: Bench) -> None:
        number = one.submit("running", "crash", again=["running", "succeed"])
        job = one.until(number, "succeeded")
        assert (job.attempt, job.reason) == (2, "")

    def test_its_slot_is_free_for_others_when_nothing_of_it_is_left(self, one: Bench) -> None:
        lost, next_one = one.submit("spawn", "crash"), one.submit("succeed")
        one.until(next_one, "succeeded")
        assert one.is_gone(lost)

    def test_that_waits_again_says_why(self, one: Bench) -> None:
        number = one.submit("running", "hold")
        one.until(number, "running")
        other = one.submit("hold", "succeed", priority=9)
        os.kill(one.folder(number).lease().pid, signal.SIGKILL)  # type: ignore[union-attr]
        one.step_until(lambda: "; cpu:0 is held by job" in one.job(number).reason)
        assert one.job(number).reason.startswith("its process was lost (was ended by SIGKILL); resuming; ")
        assert one.runner.cancel(number).reason == "cancelled; what was measured is kept"
        one.go(other)

    def test_a_process_that_does_not_end_after_its_result_is_killed(self, one: Bench, clock: Clock) -> None:
        number = one.submit("deaf", "running", "succeed", "linger")
        one.until(number, "succeeded")
        one.runner.step()
        # Until then, it may still use the cores.
        assert one.runner.host().slots[0].job == number
        assert one.folder(number).is_running()
        clock.now += one.times.exit + 1
        one.step_until(lambda: one.is_gone(number))
        one.step_until(lambda: one.runner.host().slots[0].job is None)
        assert one.states(number)[-1] == "succeeded"

    def test_also_after_it_was_cancelled_too_late(self, one: Bench, clock: Clock) -> None:
        number = one.submit("deaf", "running", "hold", "succeed", "linger")
        one.until(number, "running")
        one.runner.cancel(number)
        one.runner.step()
        one.go(number)
        one.until(number, "succeeded")
        one.runner.step()
        clock.now += one.times.exit + 1
        one.step_until(lambda: one.is_gone(number))
        assert one.states(number)[-2:] == ["cancelling", "succeeded"]


class TestARestart:
    def test_adopts_what_runs(self, one: Bench) -> None:
        number = one.submit("running", "hold", "succeed")
        one.until(number, "running")
        lease = one.folder(number).lease()
        waiting = one.submit("succeed")
        one.restart()
        one.runner.step()
        one.runner.step()
        assert one.folder(number).lease() == lease
        assert one.runner.host().slots[0].job == number
        assert one.job(waiting).state == "queued"
        one.go(number)
        one.until(waiting, "succeeded")
        assert one.states(number) == ["queued", "starting", "running", "succeeded"]
        assert _seqs(one, number) == [1, 2, 3, 4]

    def test_with_other_slots_does_not_share_the_cores_of_what_runs(self, one: Bench) -> None:
        number = one.submit("running", "hold", "succeed")
        one.until(number, "running")
        waiting = one.submit("succeed")
        one.host = replace(one.host, slots=cpu_slots(sorted(os.sched_getaffinity(0)), 1))
        one.restart()
        one.runner.step()
        one.runner.step()
        assert {slot.job for slot in one.runner.host().slots} == {number}
        assert one.job(waiting).state == "queued"
        assert one.job(number).slots == ("cpu:0",)
        one.go(number)
        one.until(waiting, "succeeded")

    def test_sees_what_ended_meanwhile(self, one: Bench) -> None:
        number = one.submit("running", "hold", "succeed")
        one.until(number, "running")
        one.runner.close()
        one.go(number)
        await_that(lambda: one.is_gone(number))
        one.restart()
        one.runner.step()
        assert one.job(number).state == "succeeded"
        assert one.ended == [number]

    def test_resumes_what_was_lost_meanwhile(self, one: Bench) -> None:
        number = one.submit("running", "hold", again=["succeed"])
        one.until(number, "running")
        one.runner.close()
        os.kill(one.folder(number).lease().pid, signal.SIGKILL)  # type: ignore[union-attr]
        one.restart()
        assert one.until(number, "succeeded").attempt == 2
        assert "its process was lost (it ended without a result); resuming" in [
            event.reason for event in one.events(number) if isinstance(event, StateChanged)
        ]

    def test_can_cancel_what_it_adopted(self, one: Bench) -> None:
        number = one.submit("running", "spawn", "hold")
        one.until(number, "running")
        one.restart()
        one.runner.cancel(number)  # before its first look, too
        one.until(number, "cancelled")
        assert one.is_gone(number)

    def test_goes_on_with_cancelling(self, one: Bench) -> None:
        number = one.submit("running", "hold")
        one.until(number, "running")
        one.runner.cancel(number)
        one.restart()
        one.until(number, "cancelled")

    def test_starts_what_was_about_to_start_but_not_twice(self, one: Bench) -> None:
        """Killed between the event and the process."""
        number = one.submit("running", "succeed")
        EventLog(one.folder(number).path).change_state(state="starting", host="here", slots=("cpu:0",))
        one.restart()
        job = one.until(number, "succeeded")
        assert job.attempt == 1
        assert one.states(number) == ["queued", "starting", "queued", "starting", "running", "succeeded"]

    def test_adopts_what_had_just_started(self, one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed between the process and the row."""
        number = one.submit("running", "hold", "succeed")
        with monkeypatch.context() as patch:
            patch.setattr(Store, "change_job", _unavailable)
            with pytest.raises(StoreUnavailableError):
                one.runner.step()
        assert one.job(number).state == "queued"
        one.restart()
        one.until(number, "running")
        one.go(number)
        one.until(number, "succeeded")
        assert one.states(number) == ["queued", "starting", "running", "succeeded"]

    def test_brings_rows_up_to_date_that_lag(self, one: Bench) -> None:
        number = one.submit("succeed")
        EventLog(one.folder(number).path).change_state(state="failed", reason="no", exit_code=2)
        one.restart()
        one.runner.step()
        assert (one.job(number).state, one.job(number).reason) == ("failed", "no")

    def test_does_not_kill_a_process_that_got_its_pid(self, one: Bench) -> None:
        number = one.submit("running", "hold")
        one.until(number, "running")
        one.runner.close()
        process = one.folder(number)
        os.kill(process.lease().pid, signal.SIGKILL)  # type: ignore[union-attr]
        await_that(lambda: not process.is_running())
        # Of this process, but for its start.
        other = own_lease()
        process.lease_file.write_text(str(other).rpartition("-")[0] + "-1")
        one.restart()
        one.runner.cancel(number)
        one.until(number, "cancelled")


def _unavailable(*_: object, **__: object) -> Any:
    raise StoreUnavailableError("the database does not answer")


class TestFaults:
    def test_without_a_database_jobs_go_on_and_their_rows_follow_later(
        self, one: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number = one.submit("running", "hold", "succeed")
        one.until(number, "running")
        with monkeypatch.context() as patch:
            for name in ("change_job", "queued", "active", "job", "count_jobs"):
                patch.setattr(Store, name, _unavailable)
            one.go(number)
            await_that(lambda: one.is_gone(number))
            for _ in range(3):
                with pytest.raises(StoreUnavailableError):
                    one.runner.step()
        assert one.job(number).state == "running"
        one.until(number, "succeeded")

    def test_the_thread_survives_what_goes_wrong(
        self, one: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "active", _unavailable)
            one.runner.start()
            await_that(lambda: "the database does not answer" in caplog.text)
        number = one.submit("succeed")
        await_that(lambda: one.job(number).state == "succeeded")
        assert caplog.text.count("the database does not answer") == 1

    def test_on_a_full_disk_a_job_waits_with_the_reason(
        self, one: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number = one.submit("succeed")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", _full)
            one.step_until(lambda: "No space left on device" in one.job(number).reason)
        assert one.job(number).state == "queued"
        clock.now += 2 * one.times.again
        one.until(number, "succeeded")

    def test_on_a_full_disk_an_end_is_written_later(self, one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        number = one.submit("running", "crash", again=["succeed"])
        one.until(number, "running")
        await_that(lambda: not one.folder(number).is_running())
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", _full)
            one.step_until(lambda: "No space left on device" in one.job(number).reason)
            assert one.job(number).slots == ("cpu:0",)
        one.until(number, "succeeded")
        assert one.job(number).attempt == 2

    def test_a_program_that_cannot_be_started_is_tried_again_later(
        self, one: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number = one.submit("succeed")
        with monkeypatch.context() as patch:
            patch.setattr(job_process, "command", lambda *_: ["/nowhere/python"])
            for _ in range(5):
                one.runner.step()
            assert one.states(number) == ["queued", "starting", "queued"]
        clock.now += 2 * one.times.again
        one.until(number, "succeeded")
        assert one.job(number).attempt == 1

    def test_whatever_goes_wrong_at_its_start_a_job_is_followed(
        self, one: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        number = one.submit("succeed")
        with monkeypatch.context() as patch:
            patch.setattr(job_process, "command", lambda *_: ["a\0b"])
            with pytest.raises(ValueError, match="null byte"):
                one.runner.step()
        assert one.states(number) == ["queued", "starting"]
        clock.now += 2 * one.times.again
        one.until(number, "succeeded")

    def test_another_service_that_took_over_is_left_alone(self, one: Bench) -> None:
        number = one.submit("succeed")
        one.runner._lost.set()
        for _ in range(3):
            one.runner.step()
        assert one.job(number).state == "queued"


def _full(_file: int, _data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_waking_it_starts_a_job_at_once(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.runner.start()
        number = made.submit("succeed")
        began = time.monotonic()
        await_that(lambda: made.job(number).state != "queued")
        assert time.monotonic() - began < 60
        await_that(lambda: made.job(number).state == "succeeded")


@contextmanager
def _full_disk() -> Iterator[None]:
    """No file of this process can grow within the context."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_when_its_disk_was_full_the_service_goes_on_where_it_was(one: Bench, clock: Clock) -> None:
    number = one.submit("running", "hold", "succeed", again=["running", "succeed"])
    waiting = one.submit("succeed")
    one.until(number, "running")
    lease = one.folder(number).lease()
    assert lease is not None
    resource.prlimit(lease.pid, resource.RLIMIT_FSIZE, (1, 1))
    one.go(number)
    with _full_disk():
        await_that(lambda: one.is_gone(number))
        assert one.states(number) == ["queued", "starting", "running"]
        for _ in range(5):
            with suppress(StoreUnavailableError):
                one.runner.step()
            clock.now += one.times.again
    assert one.states(number) == ["queued", "starting", "running"]
    assert one.until(number, "succeeded").attempt == 2
    one.until(waiting, "succeeded")
    assert one.states(waiting) == ["queued", "starting", "succeeded"]
    assert _seqs(one, number) == list(range(1, len(_seqs(one, number)) + 1))
