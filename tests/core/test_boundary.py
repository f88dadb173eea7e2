"""What nobody foresaw: one line, a log without secrets, exit code 1."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from support import builders
from support.command_line import tritontune

from tuner.cli import doctor
from tuner.core import boundary as module
from tuner.core.boundary import LOG, boundary, command_without_secrets, in_one_line, write_log
from tuner.core.errors import JobError, UnexpectedError, shortened
from tuner.jobs import tuning
from tuner.jobs.progress import Progress
from tuner.study import study as study_module
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

SECRET = "hunter2-swordfish"  # noqa: S105 (it is to be looked for)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where logs go that have no folder of a run."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def _full(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/front.json")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("a bug\nin two lines"), "ZeroDivisionError: a bug in two lines"),
        (RuntimeError(), "RuntimeError"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError("x" * 5_000), "MemoryError: xx"),
        (OSError(errno.ENOSPC, "No space left on device", "f"), "OSError: No space left on device: 'f'"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), "UnicodeEncodeError: "),
        (ValueError(f"password={SECRET}"), "ValueError: password=***"),
    ],
)
def test_a_command_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, error: Exception, words: str
) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(doctor, "doctor", fail)
    done = tritontune("doctor", "--image", f"user:{SECRET}@registry/image")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    (log,) = temporary.iterdir()
    assert line.startswith(f"tritontune: unexpected {words}")
    assert line.endswith(f"; the log is {log}")
    assert len(line) < 1_000
    text = log.read_text()
    assert "command: tritontune doctor" in text
    assert "Traceback (most recent call last)" in text
    assert "optuna " in text
    assert f"Python: {sys.version.split()[0]}" in text
    assert f"password={SECRET}" not in text


def test_the_log_is_in_the_folder_of_the_run(tmp_path: Path) -> None:
    words = rf"^unexpected KeyError: 'x'; the log is {tmp_path}/error\.log$"
    with pytest.raises(UnexpectedError, match=words), boundary(tmp_path):
        raise KeyError("x")
    assert "KeyError: 'x'" in (tmp_path / LOG).read_text()


def test_what_is_raised_on_purpose_passes(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no such"), boundary(tmp_path):
        raise JobError("no such")
    with pytest.raises(KeyboardInterrupt), boundary(tmp_path):
        raise KeyboardInterrupt
    assert not (tmp_path / LOG).exists()


@pytest.fixture
def full_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which there is no space left."""
    folder = tmp_path / "full"
    folder.mkdir()
    write = Path.write_text

    def write_text(path: Path, *args: object, **options: object) -> int:
        if path.is_relative_to(folder):
            path.touch()
            _full()
        return write(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", write_text)
    return folder


def test_a_full_disk_has_its_log_elsewhere(full_folder: Path, temporary: Path) -> None:
    log = write_log(ValueError("no"), full_folder)
    assert log is not None
    assert log.parent == temporary
    assert "ValueError: no" in log.read_text()
    assert not list(full_folder.iterdir())


def test_where_nothing_can_be_written_the_error_is_told(tmp_path: Path, temporary: Path) -> None:
    shutil.rmtree(temporary)
    words = "unexpected ValueError: no; no log could be written"
    with pytest.raises(UnexpectedError, match=words), boundary(tmp_path / "nowhere"):
        raise ValueError("no")


def test_a_fault_of_the_log_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "command_without_secrets", _full)
    with pytest.raises(UnexpectedError, match="unexpected ValueError: no"), boundary():
        raise ValueError("no")


def test_the_root_of_an_error_is_told() -> None:
    outer = RuntimeError("commit failed")
    outer.__cause__ = sqlite3.OperationalError("database is locked")
    assert in_one_line(outer) == "OperationalError: database is locked"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "models", "--seed", "1"], "tritontune run models --seed 1"),
        (["run", "-H", f"authorization:Bearer {SECRET}", "-b", "2"], "tritontune run -H '***' -b 2"),
        (["run", f"-Hx:{SECRET}"], "tritontune run '-H***'"),
        (["run", f"--header=x:{SECRET}"], "tritontune run '--header=***'"),
        (["run", "--header", f"x:{SECRET}"], "tritontune run --header '***'"),
        (["run", "--env", f"NAME={SECRET}"], "tritontune run --env '***'"),
        (["run", "--request-parameter", f"k:{SECRET}:string"], "tritontune run --request-parameter '***'"),
        (["run", "--url", f"http://me:{SECRET}@host:8000"], "tritontune run --url 'http://***@host:8000'"),
        (["run", "--header"], "tritontune run --header"),
        (
            ["run", f"--triton-arg=--http-restricted-api=inference:k={SECRET}"],
            "tritontune run '--triton-arg=--http-restricted-api=inference:k=***'",
        ),
    ],
)
def test_a_command_line_without_secrets(words: list[str], told: str) -> None:
    assert command_without_secrets(words) == told


def test_a_long_reason_is_one_line_with_its_end() -> None:
    told = shortened("first\n" + "x" * 30_000 + "\nwhat to do")
    assert len(told) <= 500
    assert told.startswith("first xx")
    assert " more characters ...] " in told
    assert told.endswith("what to do")
    assert shortened("short\n  one") == "short one"


def _written_to(output: int, temporary: Path) -> tuple[int, str]:
    """What becomes of a command whose output goes there; as a process of its own, as Python writes at its very end."""
    done = subprocess.run(
        [sys.executable, "-c", "from tuner.cli.main import main; main()", "nightly", "--schema"],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_output_to_a_full_disk(temporary: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        code, told = _written_to(full.fileno(), temporary)
    (log,) = temporary.iterdir()
    assert (code, told) == (1, f"tritontune: unexpected OSError: No space left on device; the log is {log}\n")


@pytest.mark.slow
def test_output_to_who_reads_no_more(temporary: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        assert _written_to(pipe.fileno(), temporary) == (1, "")
    assert not list(temporary.iterdir())


class _Noted(Progress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class _FailingTuning:
    """Measures one candidate, and comes to grief."""

    def __init__(self, _context: object, _model: object, study: Study) -> None:
        self._study = study

    def run(self) -> NoReturn:
        built = builders.space()
        self._study.add(builders.trial(0, builders.point(), parameters=built.baseline), built)
        _full()


def test_what_was_measured_is_written_when_a_run_comes_to_grief(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, progress = RunFolder(tmp_path), _Noted()
    context = SimpleNamespace(
        out=out,
        job=SimpleNamespace(budget=60.0),
        launcher=SimpleNamespace(machine=None),
        machine=None,
        name="mlp",
        progress=progress,
    )
    monkeypatch.setattr(tuning, "ModelTuning", _FailingTuning)
    monkeypatch.setattr(tuning, "identity_of", lambda *_: builders.identity())
    monkeypatch.setattr(tuning, "provenance", lambda *_: None)
    monkeypatch.setattr(Study, "begin", lambda *_: None)
    whole: Any = context
    full = pytest.raises(UnexpectedError, match="No space left on device")
    with full, boundary(tmp_path), tuning.reported(whole, _full):
        tuning.tune_model(whole, whole)
    assert json.loads((tmp_path / "mlp/front.json").read_text())["best"]["trial"] == 0
    assert (tmp_path / "mlp/best/config.pbtxt").exists()
    words = "OSError: No space left on device: 'run/front.json'"
    assert Study.load(out.database, "mlp").ended == f"cut short: {words}"
    assert progress.notes == [f"cannot write the report: {words}; retry with: tritontune report {tmp_path}"]
    assert "in run\n" in (tmp_path / LOG).read_text()


def test_a_locked_study_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "_LOCK_TIMEOUT_S", 0.05)
    study = Study.create_or_resume(tmp_path / "study.db", builders.identity())
    with closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnexpectedError, match="database is locked; the log is"), boundary(tmp_path):
            study.end("done")
