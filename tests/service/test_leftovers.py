"""What the process of a job leaves, and its removal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.command_line import await_that
from support.studies import long_study

from tuner.client.resources import Job
from tuner.core.errors import TuningError
from tuner.core.lease import Lease, own_lease
from tuner.core.proc import lives, read_state
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Noted
from tuner.service import leftovers
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.job_processes import end_processes_of, processes_of
from tuner.service.leftovers import remove
from tuner.service.place import VARIABLE, nights_of
from tuner.study.run_folder import RunFolder

# Leaves what a run leaves that is killed: a folder of a server, work, and shared memory.
_OWNER = """
import sys, time
from pathlib import Path
from tuner.core.lease import own_lease
from tuner.core.mark import Mark
mark = Mark.new()
mark.folder.mkdir()
(Path(mark.folder.parent) / f"work-of-{mark}").mkdir()
Path(sys.argv[1]).write_text(str(own_lease()))
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _temporary_files_are_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))


Make = Callable[..., JobFolder]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(kind: Any = "tune", **options: Any) -> JobFolder:
        folder = JobFolder.of(tmp_path / "data/jobs", 12)
        job = Job(id=12, kind=kind, state="queued", created_at=datetime.now(timezone.utc), job=options)
        folder.write(SubmissionRecord(job=job))
        return folder

    return made


def _lease_of(pid: int) -> Lease:
    state, own = read_state(pid), own_lease()
    assert state is not None
    return Lease(own.host, own.boot, own.namespace, pid, state.started)


@pytest.fixture
def session() -> Iterator[tuple[Lease, list[int]]]:
    """A process with one in its session, and one of its own session that has its lease. Then it is killed."""
    script = f"""
import os, subprocess, sys, time
from tuner.core.lease import own_lease
os.environ[{VARIABLE!r}] = str(own_lease())
same = subprocess.Popen(["sleep", "600"])
other = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(same.pid, other.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        lease = _lease_of(process.pid)
        yield lease, pids
        for each in processes_of(lease):
            each.kill()
        process.kill()


class TestProcesses:
    def test_all_that_it_started_are_found_and_ended(self, session: tuple[Lease, list[int]]) -> None:
        lease, pids = session
        assert {process.pid for process in processes_of(lease)} == {lease.pid, *pids}
        assert list(end_processes_of(lease)) == []
        assert processes_of(lease) == []
        assert not lives(lease.pid, lease.started)

    def test_after_its_end_too(self, session: tuple[Lease, list[int]]) -> None:
        lease, pids = session
        os.kill(lease.pid, signal.SIGKILL)
        await_that(lambda: not lives(lease.pid, lease.started))
        assert {process.pid for process in processes_of(lease)} == set(pids)
        assert list(end_processes_of(lease)) == []
        assert processes_of(lease) == []

    def test_a_session_of_another_process_with_its_pid_is_left_alone(self) -> None:
        own = own_lease()
        with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:
            reused = Lease(own.host, own.boot, own.namespace, other.pid, 1)
            assert processes_of(reused) == []
            assert list(end_processes_of(reused)) == []
            assert other.poll() is None
            other.kill()

    def test_of_another_boot_or_container_none_is_searched(self) -> None:
        own = own_lease()
        for other in (
            Lease(own.host, "0" * 8, own.namespace, own.pid, own.started),
            Lease(own.host, own.boot, 1, own.pid, own.started),
        ):
            assert list(end_processes_of(other)) == []

    def test_what_does_not_end_is_said(self, session: tuple[Lease, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
        lease, _ = session
        with monkeypatch.context() as patch:
            patch.setattr(psutil.Process, "kill", lambda _self: None)
            patch.setattr("tuner.service.job_processes._DEADLINE_S", 0.0)
            assert f"SIGKILL does not end process {lease.pid}" in list(end_processes_of(lease))


def test_its_folders_are_removed(make: Make, tmp_path: Path) -> None:
    folder = make()
    (RunFolder(folder.run).work / "served").mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", _OWNER, str(folder.lease_file)], start_new_session=True) as owner:
        await_that(lambda: folder.lease() is not None)
        assert len(list((tmp_path / "tmp").iterdir())) == 2
        owner.kill()
    assert list(remove(folder, {})) == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not RunFolder(folder.run).work.exists()
    assert list(remove(folder, {})) == []  # it may be repeated


def test_the_work_of_a_killed_night_is_removed(make: Make) -> None:
    folder = make("nightly", repository="/models")
    night = nights_of(folder, folder.read().job) / "nights/20260101-030000-000"
    (night / "models/mlp/.work").mkdir(parents=True)
    assert list(remove(folder, {})) == []
    assert not night.exists()


class TestContainers:
    """No engine answers here."""

    @pytest.mark.parametrize("options", [{}, {"server": "process"}, {"url": "h:1"}, {"server": "auto"}])
    def test_a_job_without_docker_does_not_need_the_engine(self, make: Make, options: dict[str, str]) -> None:
        assert list(remove(make(**options), {})) == []

    @pytest.mark.parametrize("options", [{"server": "docker"}, {"image": "triton:1"}, {"network": "n"}])
    def test_a_job_in_docker_is_not_gone_before_the_engine_says_so(self, make: Make, options: dict[str, str]) -> None:
        (left,) = remove(make(**options), {})
        assert "Docker" in left

    def test_are_removed_by_their_labels(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[str] = []
        monkeypatch.setattr(leftovers, "engine_problem", lambda _image: None)
        monkeypatch.setattr(leftovers, "remove_docker_leftovers", lambda: calls.append("removed"))
        assert list(remove(make(), {})) == []
        assert calls == ["removed"]

    def test_an_error_does_not_keep_the_other_steps(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails() -> None:
            raise TuningError("a container does not end")

        folder = make()
        RunFolder(folder.run).work.mkdir(parents=True)
        monkeypatch.setattr(leftovers, "engine_problem", lambda _image: None)
        monkeypatch.setattr(leftovers, "remove_docker_leftovers", fails)
        assert list(remove(folder, {})) == ["a container does not end"]
        assert not RunFolder(folder.run).work.exists()


class TestThePartialResult:
    @pytest.mark.slow
    def test_has_its_files_and_its_report(self, make: Make) -> None:
        folder = make()
        long_study(RunFolder(folder.run), 4)
        assert list(remove(folder, {})) == []
        assert RunFolder(folder.run).report.exists()
        assert (RunFolder(folder.run).model("mlp") / "front.json").exists()

    @pytest.mark.slow
    def test_that_its_process_has_written_stays(self, make: Make) -> None:
        folder = make()
        long_study(RunFolder(folder.run), 2)
        RunFolder(folder.run).report.write_text("mine")
        assert list(remove(folder, {})) == []
        assert RunFolder(folder.run).report.read_text() == "mine"

    def test_that_cannot_be_read_is_noted_and_frees_the_slot(self, make: Make) -> None:
        folder = make()
        folder.run.mkdir()
        RunFolder(folder.run).database.write_text("no database")
        assert list(remove(folder, {})) == []
        assert [event for event in EventLog(folder.path).read() if isinstance(event, Noted)]


@pytest.mark.slow
def test_configs_of_a_running_triton_that_cannot_be_restored_are_noted(make: Make) -> None:
    folder = make(url="127.0.0.1:1", model="mlp")
    long_study(RunFolder(folder.run), 2)
    RunFolder(folder.run).own_configs.write_text('{"address": "127.0.0.1:1", "models": {"mlp": "{}"}}')
    assert list(remove(folder, {})) == []
    notes = [event.text for event in EventLog(folder.path).read() if isinstance(event, Noted)]
    assert len(notes) == 1
    assert "127.0.0.1:1" in notes[0]


def test_the_command_tells_what_is_left(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(server="docker")
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: PTH123, SIM115 (closed below)
    with sys.stdin:
        assert leftovers.main([str(folder.path)]) == 1
    assert "Docker" in capsys.readouterr().out
