from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.builders import point
from support.stored import T0, job

from tuner.client.resources import FINAL, JobState
from tuner.core.errors import JobError
from tuner.core.objectives import THROUGHPUT
from tuner.jobs.event_log import EventLog, EventTail
from tuner.jobs.events import ModelBegan, PointMeasured, StateChanged, TrialBegan, TrialEnded
from tuner.results.points_json import judged_point_json
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.job_view import JobViews
from tuner.service.rebuild import indexed
from tuner.service.retention import Pruned, Retention, parse_keep
from tuner.service.store.store import Store

DAY = timedelta(days=1)
KEPT = [
    "job.log",
    "run/mlp/best/config.pbtxt",
    "run/mlp/front.json",
    "run/mlp/trials/000/launch.txt",
    "run/report.html",
    "run/study.db",
    "proposals/1.json",
]
LOGS = ["run/mlp/trials/000/server.log", "run/mlp/verify/01/server.log.1", "run/server.log"]


class Jobs:
    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.jobs, self.now = store, folder / "jobs", T0
        self.retention = Retention(store, self.jobs, 90 * DAY, lambda: self.now)

    def add(self, state: JobState = "succeeded", **fields: Any) -> JobFolder:
        number = self.store.next_job_id()
        ended = {"ended_at": T0, "exit_code": 0} if state in FINAL else {}
        made = self.store.add_job(job(number, state=state, **ended, **fields))
        folder = JobFolder.of(self.jobs, number)
        folder.write(SubmissionRecord(job=made.model_copy(update={"state": "queued"})))
        for name in (*KEPT, *LOGS):
            (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
            (folder.path / name).write_text("x" * 1000)
        log = EventLog(folder.path)
        about = {"model": "mlp", "trial": 0}
        told = [judged_point_json(point(load, 100.0 * load, 5.0), THROUGHPUT) for load in (1, 2, 4)]
        log.append(StateChanged, state="running")
        log.append(ModelBegan, model="mlp", slo="", percentile="p99", objective="throughput", budget_s=60.0)
        log.append(TrialBegan, candidate='{"seq":1,"at":"","version":1,"type":"point",', **about)
        for each in told:
            log.append(PointMeasured, point=each, **about)
        log.append(TrialEnded, candidate="c", parameters={}, points=told, wall_s=1.0, **about)
        log.append(PointMeasured, model="cnn", trial=None, point=told[0])
        if state in FINAL:
            log.append(StateChanged, state=state, exit_code=0, at=T0)
        return folder


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
        yield Jobs(store, tmp_path)


def seen(folder: JobFolder) -> Any:
    """All that users see of a job's events, but for the lines in words."""
    view = JobViews(lambda _: folder.path).of(folder.id)
    return view.trials, view.front(), view.results, view.progress, view.state, indexed(folder)


def test_an_old_job_loses_its_logs_and_keeps_its_results(jobs: Jobs) -> None:
    folder = jobs.add()
    before, events = seen(folder), list(EventLog(folder.path).read())
    jobs.now = T0 + 89 * DAY
    assert jobs.retention.step() == Pruned()
    assert all((folder.path / name).exists() for name in LOGS)
    jobs.now = T0 + 91 * DAY
    pruned = jobs.retention.step()
    assert (pruned.jobs, pruned.problems) == (1, ())
    assert pruned.size > 3000
    assert str(pruned).endswith("MB of logs and points of 1 old job removed")
    assert all((folder.path / name).exists() for name in KEPT)
    assert not any((folder.path / name).exists() for name in LOGS)
    assert seen(folder) == before
    left = list(EventLog(folder.path).read())
    assert [event for event in events if event not in left] == events[3:6]
    assert [event.seq for event in left] == [1, 2, 3, 7, 8, 9]
    # Once is enough.
    assert jobs.retention.step() == Pruned()


def test_who_follows_the_events_sees_none_again(jobs: Jobs) -> None:
    folder = jobs.add()
    tail = EventTail(folder.path)
    assert len(tail.new()) == 9
    jobs.now = T0 + 91 * DAY
    jobs.retention.step()
    assert tail.new() == []


@pytest.mark.parametrize("state", ["queued", "starting", "running", "cancelling"])
def test_a_job_that_has_not_ended_is_never_touched(jobs: Jobs, state: JobState) -> None:
    folder = jobs.add(state)
    before = folder.events.read_bytes()
    jobs.now = T0 + 10_000 * DAY
    assert jobs.retention.step() == Pruned()
    assert folder.events.read_bytes() == before
    assert all((folder.path / name).exists() for name in LOGS)


def test_links_are_not_followed(jobs: Jobs, tmp_path: Path) -> None:
    folder = jobs.add()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "server.log").write_text("mine")
    (folder.run / "elsewhere").symlink_to(outside)
    (folder.run / "mlp/server.log").symlink_to(outside / "server.log")
    jobs.now = T0 + 91 * DAY
    jobs.retention.step()
    assert (outside / "server.log").read_text() == "mine"


def test_a_folder_that_is_gone_or_cannot_be_changed_leaves_the_others(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, broken, fine = jobs.add(), jobs.add(), jobs.add()
    gone.path.rename(gone.path.with_name("moved"))
    unlink = os.unlink

    def failing(path: Any, **more: Any) -> None:
        if str(path).startswith(str(broken.run)):
            raise OSError(30, "Read-only file system", str(path))
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", failing)
    jobs.now = T0 + 91 * DAY
    pruned = jobs.retention.step()
    assert pruned.jobs == 1
    (problem,) = pruned.problems
    assert problem.startswith(f"job {broken.id}: not pruned: ")
    assert "Read-only file system" in problem
    assert not (fine.path / LOGS[0]).exists()
    monkeypatch.undo()
    assert jobs.retention.step().jobs == 1


def test_it_runs_in_a_thread(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.add()
    jobs.now = T0 + 91 * DAY
    done = threading.Event()
    step = jobs.retention.step

    def told() -> Pruned:
        try:
            return step()
        finally:
            done.set()

    monkeypatch.setattr(jobs.retention, "step", told)
    with jobs.retention.running():
        assert done.wait(60)
    assert jobs.retention.step() == Pruned()


def test_the_time_to_keep() -> None:
    assert parse_keep("90d") == parse_keep(" 90 d ") == 90 * DAY
    assert parse_keep("36h") == 1.5 * DAY
    for wrong, message in (
        ("90", "90 has no unit; write 90d or 90h"),
        ("0d", "not a duration"),
        ("x", "not a duration"),
    ):
        with pytest.raises(JobError, match=f"--keep: .*{message}"):
            parse_keep(wrong)
