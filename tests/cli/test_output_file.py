"""Of every command that writes a file: it makes no folder for it, and no other file is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.command_line import tritontune

from tuner.results.result_files import write_results
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

COMMANDS = [
    (["export", "run"], "--to", "mlp.json"),
    (["report", "run"], "--out", "page.html"),
    (["measure", "--url", "127.0.0.1:1"], "--csv", "points.csv"),
]


@pytest.fixture
def run(study: Study, tmp_path: Path) -> Path:
    """The folder in which `run` lies."""
    write_results(RunFolder(tmp_path / "run"), study)
    return tmp_path


def _refusal(run: Path, *arguments: str) -> str:
    done = tritontune(*arguments, cwd=run)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(("command", "option", "name"), COMMANDS)
def test_no_folder_is_made(run: Path, command: Sequence[str], option: str, name: str) -> None:
    line = _refusal(run, *command, option, f"nowhere/{name}")
    assert line == f"tritontune: {option}: no such folder nowhere"
    assert not (run / "nowhere").exists()


@pytest.mark.parametrize(("command", "option", "name"), COMMANDS)
def test_a_file_that_is_there_stays(run: Path, command: Sequence[str], option: str, name: str) -> None:
    (run / name).write_text("mine")
    line = _refusal(run, *command, option, name)
    assert line == f"tritontune: {option}: {name} exists already; replace it with --force, or choose another file"
    assert (run / name).read_text() == "mine"


@pytest.mark.parametrize(("command", "option", "name"), COMMANDS[:2])
def test_it_is_replaced_when_asked_to(run: Path, command: Sequence[str], option: str, name: str) -> None:
    (run / name).write_text("mine")
    done = tritontune(*command, option, name, "--force", cwd=run)
    assert done.returncode == 0, done.stderr
    assert (run / name).read_text() != "mine"


@pytest.mark.parametrize(("command", "option", "name"), COMMANDS)
def test_force_without_a_file_is_not_ignored(run: Path, command: Sequence[str], option: str, name: str) -> None:
    assert name
    line = _refusal(run, *command, "--force")
    assert line == f"tritontune: --force needs {option}: there is no file to replace"
