"""The process that waits for the next job."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.command_line import await_that
from support.service_jobs import Bench, FakeClearing, bench, fake_command

from tuner.jobs.event_log import EventLog
from tuner.service import job_process, runner
from tuner.service.place import Place
from tuner.service.spare import Spare


@pytest.fixture
def spare() -> Iterator[Spare]:
    made = Spare(os.environ)
    yield made
    made.close()


def _becomes(spare: Spare, made: Bench, job_id: int) -> bool:
    """Whether it becomes the process of a job that starts."""
    folder = made.folder(job_id)
    EventLog(folder.path).change_state(state="starting")
    with folder.claimed() as lock:
        assert lock is not None
        process = job_process.JobProcess.start(
            folder, lock, Place(), environment=os.environ, secrets={"KEY": "hush-hush-12"}, spare=spare
        )
    await_that(lambda: not process.lives())
    lease = folder.lease()
    return lease is not None and lease.pid == spare._process.pid


@pytest.mark.slow
def test_it_becomes_the_process_of_a_job(tmp_path: Path, spare: Spare) -> None:
    with bench(tmp_path) as made:
        number = made.submit(repository="/nowhere", header={"key": "${KEY}"})
        assert _becomes(spare, made, number)
        assert made.states(number) == ["queued", "starting", "running", "failed"]
        assert "/nowhere: no such folder" in made.folder(number).log.read_text()


@pytest.mark.slow
def test_one_that_has_ended_is_no_loss(tmp_path: Path, spare: Spare) -> None:
    spare._process.kill()
    spare._process.wait()
    with bench(tmp_path) as made:
        number = made.submit(repository="/nowhere")
        assert not _becomes(spare, made, number)
        assert made.states(number)[-1] == "failed"


@pytest.mark.slow
def test_it_ends_with_the_service(spare: Spare) -> None:
    spare._channel.close()  # as the kernel does
    assert spare._process.wait(120) == 0


class _FakeSpare:
    """One that only lives."""

    made = 0

    def __init__(self, _environment: object) -> None:
        type(self).made += 1
        self.lives, self.is_closed = True, False

    def take(self, arguments: list[str], **_: int) -> None:
        assert json.dumps(arguments)

    def close(self) -> None:
        self.lives, self.is_closed = False, True


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A host with nothing to do, and fake processes."""
    monkeypatch.setattr(job_process, "command", fake_command)
    monkeypatch.setattr(runner, "Clearing", FakeClearing)
    monkeypatch.setattr(runner, "Spare", _FakeSpare)
    monkeypatch.setattr(_FakeSpare, "made", 0)
    with bench(tmp_path, keeps_spare=True) as made:
        yield made


def _spare_of(made: Bench) -> Any:
    return made.runner._spare


def test_an_idle_host_keeps_one(idle: Bench) -> None:
    idle.step_until(lambda: idle.runner._spare is not None)
    spare: Any = _spare_of(idle)
    idle.runner.step()
    assert _spare_of(idle) is spare
    idle.runner.close()
    assert spare.is_closed


def test_a_busy_host_starts_none(idle: Bench) -> None:
    idle.step_until(lambda: idle.runner._spare is not None)
    number = idle.submit("running", "hold", "succeed")
    idle.until(number, "running")
    assert idle.runner._spare is None
    for _ in range(3):
        idle.runner.step()
    assert _FakeSpare.made == 1
    idle.go(number)
    idle.until(number, "succeeded")
    idle.step_until(lambda: idle.runner._spare is not None)


def test_one_that_ends_by_itself_is_not_started_again_and_again(idle: Bench) -> None:
    idle.step_until(lambda: idle.runner._spare is not None)
    spare: Any = _spare_of(idle)
    spare.lives = False
    for _ in range(5):
        idle.runner.step()
    assert idle.runner._spare is None
    assert _FakeSpare.made == 1
