"""The folder of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tuner.client.resources import Job, Policy
from tuner.core.errors import JobError
from tuner.core.lease import own_lease
from tuner.service.job_folder import JobFolder, SubmissionKey, SubmissionRecord

_ID = "1f"
_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def _record() -> SubmissionRecord:
    job = Job(id=12, kind="tune", state="queued", created_at=_AT, job={"model": "mlp", "header": {"k": "${KEY}"}})
    return SubmissionRecord(
        job=job, key=SubmissionKey(token=_ID, key="k", digest="d"), policy=Policy(action="apply"), window_s=60.0
    )


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder.of(tmp_path / "jobs", 12)
    folder.write(_record())
    return folder


def test_a_submission_is_read_as_it_was_written(folder: JobFolder) -> None:
    assert folder.read() == _record()
    assert folder.id == 12
    assert folder.data == folder.path.parent.parent


def test_a_folder_without_a_readable_submission_is_refused_in_one_line(folder: JobFolder) -> None:
    folder.submission.write_text('{"job": {"id": 0}}')
    with pytest.raises(JobError, match=r"submission\.json: job"):
        folder.read()
    folder.submission.unlink()
    with pytest.raises(JobError, match=r"submission\.json: cannot be read: No such file"):
        folder.read()


@pytest.mark.parametrize("number", [0, -1, 10**9, "1/..", "a", True, 1.5])
def test_only_an_id_becomes_a_folder(number: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the id of a job"):
        JobFolder.of(tmp_path, number)


def test_all_folders_are_listed_by_age_and_nothing_else(tmp_path: Path) -> None:
    for name in ("10", "9", "x", "012", "1.5", "0"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("a file")
    assert [folder.id for folder in JobFolder.all(tmp_path)] == [9, 10]
    assert JobFolder.all(tmp_path / "nowhere") == []


def test_the_lease_is_that_of_the_process_or_none(folder: JobFolder) -> None:
    assert folder.lease() is None
    folder.lease_file.write_text(f"{own_lease()}\n")
    assert folder.lease() == own_lease()
    folder.lease_file.write_bytes(b"\xff torn")
    assert folder.lease() is None


def test_the_lock_passes_to_a_process_and_ends_with_it(folder: JobFolder) -> None:
    with folder.claimed() as descriptor:
        assert descriptor is not None
        assert folder.is_running()  # nobody else can claim it meanwhile
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
        )
    with process:
        assert folder.is_running()
        with folder.claimed() as other:
            assert other is None
        process.kill()
    assert not folder.is_running()


def test_artifacts_are_files_of_the_folder_alone(folder: JobFolder, tmp_path: Path) -> None:
    (folder.run / "mlp").mkdir(parents=True)
    (folder.run / "mlp/front.json").write_text("{}")
    (tmp_path / "secret").write_text("x")
    (folder.run / "out").symlink_to(tmp_path / "secret")
    (folder.run / "loop").symlink_to(folder.run / "loop")
    (folder.run / "inside").symlink_to(folder.run / "mlp/front.json")
    folder.lease_file.write_text("x")
    assert folder.artifact("run/mlp/front.json") == (folder.run / "mlp/front.json").resolve()
    assert folder.artifact("run/inside") == (folder.run / "mlp/front.json").resolve()
    hostile = ("", "/etc/passwd", "../../secret", "run/../../12/submission.json", "run//mlp", "run/out", "run/loop")
    for name in (*hostile, ".lease", "run", "run/mlp/", "a\0b", "x" * 5000, f"{os.sep}run/mlp/front.json"):
        assert folder.artifact(name) is None, name
