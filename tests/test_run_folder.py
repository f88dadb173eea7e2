from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import JobError
from tuner.run_folder import RunFolder


def test_its_work_is_cleared_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    with folder.opened(resume=False):
        (folder.work / "staged").mkdir()
    assert not folder.work.exists()


def test_what_a_killed_run_left_in_it_is_cleared_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.work / "old").mkdir(parents=True)
    with folder.opened(resume=False):
        assert not list(folder.work.iterdir())


def test_two_runs_do_not_share_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.opened(resume=False):
        with pytest.raises(JobError, match="another run is at work in it"), folder.opened(resume=False):
            pass
        assert folder.work.is_dir()


def test_a_study_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.database.touch()
    with pytest.raises(JobError, match="holds a study already; go on by --resume"), folder.opened(resume=False):
        pass


def test_only_a_run_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is not the folder of a run"), RunFolder(tmp_path).opened(resume=True):
        pass


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(JobError, match="--out: .*cannot be used"),
        RunFolder(tmp_path / "file" / "run").opened(resume=False),
    ):
        pass


def test_trials_are_numbered_with_three_digits(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).trial("mlp", 7) == tmp_path / "mlp" / "trials" / "007"
