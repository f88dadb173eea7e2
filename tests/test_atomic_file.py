from __future__ import annotations

import os
from pathlib import Path

import pytest

from tuner.atomic_file import write_atomically


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
