from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.core.atomic_file import remove_unfinished, write_atomically
from tuner.core.lease import own_lease


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new/file.txt"
    for text in ("first", "zweiter, größer"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [each.name for each in path.parent.iterdir()] == ["file.txt"]


def test_it_has_the_mode_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_what_utf8_cannot_say_is_escaped(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "a\udcffb")
    assert (tmp_path / "file").read_text() == "a\\udcffb"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "text")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_what_is_replaced_keeps_its_mode_and_a_link_leads_to_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    write_atomically(tmp_path / "link", b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link"]


def test_it_outlives_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is on the disk before the name is, and the name at the end."""
    done: list[str] = []
    sync, move = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def moved(self: Path, target: Path) -> Path:
        done.append("move")
        return move(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", moved)
    write_atomically(tmp_path / "file", "text")
    assert done == ["file", "move", "folder"]


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", "new")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "old")]


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "text")
        assert os.read(reader, 100) == b"text"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_killed_writers_left_goes_and_what_live_ones_write_stays(tmp_path: Path) -> None:
    own = own_lease()
    ended = replace(own, pid=999_999_999)
    leases = {"ended": ended, "live": own, "elsewhere": replace(ended, host="12345678", boot="12345678")}
    paths = {word: tmp_path / f".file.new-0123abcd-{lease}" for word, lease in leases.items()}
    for path in (*paths.values(), tmp_path / ".file.of-somebody-else-1-2", tmp_path / f".other.new-0123abcd-{ended}"):
        path.touch()
    assert remove_unfinished(tmp_path / "file") == 1
    assert not paths["ended"].exists()
    assert len(list(tmp_path.iterdir())) == 4
