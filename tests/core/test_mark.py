from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.core.mark import Mark, marks_on_files
from tuner.servers.process import remove_process_leftovers

_parts = st.text("0123456789abcdef", min_size=8, max_size=8)
_numbers = st.integers(min_value=0)


@given(_parts, _parts, _numbers, _numbers, _numbers, _numbers)
def test_reads_what_it_writes(host: str, boot: str, namespace: int, pid: int, started: int, number: int) -> None:  # noqa: PLR0917
    mark = Mark(host, boot, namespace, pid, started, number)
    assert Mark.of(str(mark)) == mark
    assert Mark.of(f"{mark.shared_memory_prefix}4ddff82c-ceeb-4776-87c8-18e08acdd258") == mark


_LEASE = "0123456789abcdef-f0000000-5-99"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tritontune",
        f"tritontune-{_LEASE}",
        f"tritontune-{_LEASE}-x",
        f"x-tritontune-{_LEASE}-1",
        "tritontune-4026531836-5-99-1",
    ],
)
def test_reads_nothing_else(text: str) -> None:
    assert Mark.of(text) is None


def test_each_server_has_its_own() -> None:
    first, second = Mark.new(), Mark.new()
    assert first != second
    assert first.pid == second.pid == os.getpid()
    assert not str(second).startswith(first.shared_memory_prefix)


def test_the_mark_of_a_living_owner_is_not_abandoned() -> None:
    assert not Mark.new().abandoned


def test_live_folders_of_another_host_stay_in_a_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are not seen here, whatever their pids, and the first namespaces of all hosts have one number."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = replace(Mark.new(), pid=999_999_999)
    elsewhere = replace(ended, host="0123abcd", boot="0123abcd")
    of_older_version = tmp_path / "tritontune-4026531836-999999999-99-1"
    for folder in (ended.folder, elsewhere.folder, of_older_version):
        folder.mkdir()
    assert str(ended) in remove_process_leftovers()
    assert set(tmp_path.iterdir()) == {elsewhere.folder, of_older_version}


def test_finds_and_removes_its_own_files_alone() -> None:
    mark, other = Mark.new(), Mark.new()
    try:
        for one in (mark, other):
            (one.folder / "backends").mkdir(parents=True)
        assert {mark, other} <= set(marks_on_files())
        mark.remove_files()
        assert mark not in set(marks_on_files())
        assert other.folder.is_dir()
    finally:
        other.remove_files()
    mark.remove_files()


def test_another_users_files_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = Mark.new()
    mark.folder.mkdir()
    try:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert mark not in set(marks_on_files())
    finally:
        mark.remove_files()
