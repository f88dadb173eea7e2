from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tuner.config.folders import walk


def found(root: Path) -> list[str]:
    return [f"{entry.relative}{'/' * entry.is_folder}" for entry in walk(root)]


def test_each_folder_comes_before_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "b/c").mkdir(parents=True)
    (tmp_path / "b/a").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "a").mkdir()
    assert found(tmp_path) == ["a/", "b/", "b/a", "b/c/", "b.txt"]


def test_links_are_followed_as_often_as_they_lead_somewhere_new(tmp_path: Path) -> None:
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/deep/up").symlink_to("../..")
    (tmp_path / "a/deep/self").symlink_to(".")
    (tmp_path / "twin").symlink_to("a")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "circle").symlink_to("circle")
    assert found(tmp_path) == ["a/", "a/deep/", "twin/", "twin/deep/"]


def test_what_holds_no_content_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        (tmp_path / "__pycache__").mkdir()
        (tmp_path / "__pycache__/x.pyc").write_text("x")
        (tmp_path / "file").write_text("x")
        assert found(tmp_path) == ["file"]


def test_folders_that_may_not_be_read_are_left_out(
    open_folder: Path, as_plain_user: Callable[[], AbstractContextManager[None]]
) -> None:
    (open_folder / "lost+found").mkdir(mode=0)
    (open_folder / "file").write_text("x")
    with as_plain_user():
        assert found(open_folder) == ["file"]
