"""The process of a job, before and around its work."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tuner.client.resources import Job
from tuner.core.lease import own_lease
from tuner.service import run_work, worker
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.place import PYTHON, VARIABLE, Place, command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setenv(VARIABLE, "")  # restored afterwards
    monkeypatch.setattr(worker, "end_on_sigterm", lambda: None)  # this process goes on
    folder = JobFolder.of(tmp_path / "jobs", 12)
    job = Job(id=12, kind="tune", state="queued", created_at=datetime.now(timezone.utc))
    folder.write(SubmissionRecord(job=job))
    return folder


def test_it_leaves_its_lease_before_its_work(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def run(given: JobFolder, place: Place) -> int:
        seen.extend([given, place, given.lease(), given.is_running(), os.environ[VARIABLE]])
        return 3

    monkeypatch.setattr(run_work, "run", run)
    assert worker.main([str(folder.path), "--gpus", "GPU-1", "--cores", "1,3", "--config", "s.yaml"]) == 3
    place = Place("GPU-1", frozenset({1, 3}), Path("s.yaml"))
    assert seen == [folder, place, own_lease(), True, str(own_lease())]
    assert not folder.is_running()


def test_its_command_line_says_where_it_runs(folder: JobFolder) -> None:
    module = [*PYTHON, "-m", worker.__name__, str(folder.path)]
    words = command(folder, 7, Place("GPU-1", frozenset({3, 1}), Path("s.yaml")))
    assert words == [*module, "--gpus=GPU-1", "--cores=1,3", "--config=s.yaml", "--lock=7"]
    assert command(folder, 7, Place()) == [*module, "--lock=7"]


def test_what_it_starts_does_not_hold_its_lock(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def run(*_: object) -> int:
        children.append(subprocess.Popen(["sleep", "600"], close_fds=False))
        return 0

    monkeypatch.setattr(run_work, "run", run)
    with folder.claimed() as lock:
        assert lock is not None
        os.set_inheritable(lock, True)
        assert worker.main([str(folder.path), f"--lock={lock}"]) == 0
    with children[0] as child:
        assert not folder.is_running()
        child.kill()


def test_a_second_process_of_a_job_is_refused(folder: JobFolder) -> None:
    with folder.claimed(), pytest.raises(SystemExit, match="job 12: its process runs already"):
        worker.main([str(folder.path)])
    assert folder.lease() is None


def test_an_interruption_is_no_error(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_work, "run", run)
    assert worker.main([str(folder.path)]) == 130
