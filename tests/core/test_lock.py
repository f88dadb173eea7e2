from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from tuner.core.errors import JobError
from tuner.core.lock import locked


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new/work"
    with (
        locked(folder, option="work", holder="another night"),
        pytest.raises(JobError, match=f"{folder}: in use by another night"),
        locked(folder, option="work", holder="another night"),
    ):
        pass
    with locked(folder, option="work", holder="another night"):
        assert folder.is_dir()


def test_others_are_told_about_the_holder(tmp_path: Path) -> None:
    def refusal() -> str:
        with pytest.raises(JobError) as refused, locked(tmp_path, option="--data", holder="another one"):
            pass
        return str(refused.value)

    with locked(tmp_path, option="--data", holder="another one", about="process 7 on here"):
        assert refusal() == f"{tmp_path}: in use by another one (process 7 on here)"
    with locked(tmp_path, option="--data", holder="another one"):
        assert refusal() == f"{tmp_path}: in use by another one"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(JobError, match="work: .*: cannot be used: "),
        locked(tmp_path / "file", option="work", holder="x"),
    ):
        pass


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = f"^--out: {tmp_path}: cannot be locked: No locks available; choose another folder$"
    with pytest.raises(JobError, match=told), locked(tmp_path, option="--out", holder="another run"):
        pass
