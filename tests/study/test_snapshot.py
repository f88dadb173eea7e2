from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tuner.core.errors import JobError
from tuner.study import snapshot as module
from tuner.study.snapshot import snapshot


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Of one table with one row; its name is no plain URL."""
    folder = tmp_path / "a folder? 100%#"
    folder.mkdir()
    path = folder / "study.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE told (words TEXT)")
        connection.execute("INSERT INTO told VALUES ('first')")
    return path


def _told(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT words FROM told")]


def test_a_copy_that_is_gone_afterwards(database: Path) -> None:
    with snapshot(database) as copy:
        assert copy != database
        assert _told(copy) == ["first"]
    assert not copy.exists()


def test_the_original_is_only_read(database: Path) -> None:
    database.chmod(0o444)
    database.parent.chmod(0o555)
    try:
        with snapshot(database) as copy, closing(sqlite3.connect(copy)) as connection, connection:
            connection.execute("INSERT INTO told VALUES ('second')")
    finally:
        database.parent.chmod(0o755)
    assert _told(database) == ["first"]
    assert [each.name for each in database.parent.iterdir()] == ["study.db"]


def test_what_is_being_written_is_not_in_it(database: Path) -> None:
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("INSERT INTO told VALUES ('second')")
        with snapshot(database) as copy:
            assert _told(copy) == ["first"]
        writer.commit()
        with snapshot(database) as copy:
            assert _told(copy) == ["first", "second"]


def test_a_write_that_was_killed_is_taken_back_in_the_copy(database: Path, tmp_path: Path) -> None:
    """A journal that nobody holds, as a kill in the middle of a write leaves it, and a file half written."""
    killed = tmp_path / "killed"
    killed.mkdir()
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")  # so that pages go to the file before the end
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO told VALUES (?)", [("x" * 500,)] * 200)
        for name in ("study.db", "study.db-journal"):
            shutil.copyfile(database.parent / name, killed / name)
    bytes_before = (killed / "study.db").read_bytes()
    with snapshot(killed / "study.db") as copy:
        assert _told(copy) == ["first"]
    assert (killed / "study.db").read_bytes() == bytes_before
    assert (killed / "study.db-journal").exists()


def test_it_does_not_wait_for_ever(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(module, "_RETRY_S", 0.05)
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JobError, match="locked by another process"), snapshot(database):
            pass


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(JobError, match=r"study\.db: cannot be read as the study of a run: "),
        snapshot(tmp_path / "study.db"),
    ):
        pass
