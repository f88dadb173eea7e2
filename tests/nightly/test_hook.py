from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from support.command_line import await_that

from tuner.core.errors import TuningError
from tuner.nightly.hook import run_hook


def _run(tmp_path: Path, *command: str, within_s: float = 20.0) -> None:
    run_hook(command, stdin="the diff\n", variables={"MODEL": "mlp"}, within_s=within_s, log=tmp_path / "log/x.log")


def test_it_has_the_diff_and_the_variables(tmp_path: Path) -> None:
    _run(tmp_path, "sh", "-c", 'cat; echo "$MODEL $HOME"')
    text = (tmp_path / "log/x.log").read_text()
    assert text.startswith("the diff\nmlp /")


def test_it_need_not_read(tmp_path: Path) -> None:
    run_hook(["true"], stdin="x" * 10**6, variables={}, within_s=20.0, log=tmp_path / "x.log")
    assert (tmp_path / "x.log").read_text() == ""


def test_its_failure_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"command: sh exited with status 3: it is no good; see .*x.log$"):
        _run(tmp_path, "sh", "-c", "echo first; echo it is no good >&2; exit 3")
    with pytest.raises(TuningError, match="command: /nowhere/x: No such file"):
        _run(tmp_path, "/nowhere/x")


def test_it_and_its_children_are_stopped_in_time(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(TuningError, match="command: sh took longer than 500ms and was killed"):
        _run(tmp_path, "sh", "-c", f"sleep 1000 & echo $! > {pid}; wait", within_s=0.5)
    child = int(pid.read_text())
    await_that(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
