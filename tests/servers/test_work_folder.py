from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.core.mark import Mark
from tuner.servers.work_folder import remove_abandoned_work, work_folder

_KILLED = """
import os
from tuner.servers.work_folder import work_folder
with work_folder() as folder:
    (folder / "model").mkdir()
    print(folder, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def _own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def test_goes_at_the_end() -> None:
    with work_folder() as folder, work_folder() as other:
        assert folder != other
        (folder / "file").touch()
    assert not folder.exists()


def test_what_a_killed_run_left_is_removed_and_a_living_ones_stays() -> None:
    told = subprocess.run([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, check=False, text=True).stdout
    left = Path(told.strip())
    assert left.is_dir()
    with work_folder() as ours:
        assert len(remove_abandoned_work()) == 1
        assert not left.exists()
        assert ours.is_dir()


def test_another_users_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-c", _KILLED], stdout=subprocess.DEVNULL, check=False)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert remove_abandoned_work() == ()


def test_another_hosts_is_not_ours() -> None:
    ended = replace(Mark.new(), pid=999_999_999)
    elsewhere = replace(ended, host="0123abcd", boot="0123abcd")
    for mark in (ended, elsewhere):
        (Path(tempfile.gettempdir()) / f"work-of-{mark}").mkdir()
    assert len(remove_abandoned_work()) == 1
    assert [folder.name for folder in Path(tempfile.gettempdir()).iterdir()] == [f"work-of-{elsewhere}"]
