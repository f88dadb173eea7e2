from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.servers.mark import Mark, marks_on_files

numbers = st.integers(min_value=0)


@given(numbers, numbers, numbers, numbers)
def test_reads_what_it_writes(namespace: int, pid: int, started: int, number: int) -> None:
    mark = Mark(namespace, pid, started, number)
    assert Mark.of(str(mark)) == mark
    assert Mark.of(f"{mark.shared_memory_prefix}4ddff82c-ceeb-4776-87c8-18e08acdd258") == mark


@pytest.mark.parametrize("text", ["", "tritontune", "tritontune-1-2-3", "tritontune-1-2-3-x", "x-tritontune-1-2-3-4"])
def test_reads_nothing_else(text: str) -> None:
    assert Mark.of(text) is None


def test_each_server_has_its_own() -> None:
    first, second = Mark.new(), Mark.new()
    assert first != second
    assert first.pid == second.pid == os.getpid()
    assert not str(second).startswith(first.shared_memory_prefix)


def test_the_mark_of_a_living_owner_is_not_abandoned() -> None:
    assert not Mark.new().abandoned


def test_the_mark_of_a_dead_owner_is_abandoned() -> None:
    script = "from tuner.servers.mark import Mark; print(Mark.new())"
    mark = Mark.of(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.strip()
    )
    assert mark is not None
    assert mark.abandoned


def test_a_pid_that_was_given_again_does_not_protect() -> None:
    own = Mark.new()
    assert replace(own, started=own.started - 1).abandoned


def test_another_containers_servers_are_not_ours_to_judge() -> None:
    own = Mark.new()
    assert not replace(own, namespace=own.namespace + 1, started=own.started - 1).abandoned


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
