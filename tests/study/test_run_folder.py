from __future__ import annotations

from pathlib import Path

import pytest

from tuner.core.errors import InputError, JobError, TritontuneError, TuningError
from tuner.study.run_folder import RunFolder


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
        with pytest.raises(JobError, match="in use by another run"), folder.opened(resume=False):
            pass
        assert folder.work.is_dir()


def test_a_study_is_not_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.database.touch()
    with pytest.raises(JobError, match="holds a study already; use --resume"), folder.opened(resume=False):
        pass


def end_with(error: TritontuneError, folder: RunFolder, *, measured: bool = False) -> None:
    """A run that has launched something, and ends with an error."""
    with pytest.raises(type(error)), folder.opened(resume=False):
        _launch_and_raise(error, folder, measured=measured)


def _launch_and_raise(error: TritontuneError, folder: RunFolder, *, measured: bool) -> None:
    folder.trial("m", 0).mkdir(parents=True)
    if measured:
        folder.database.touch()
    raise error


def test_what_was_asked_wrongly_leaves_nothing_behind(tmp_path: Path) -> None:
    end_with(InputError("no such input"), RunFolder(tmp_path / "runs" / "run"))
    assert not list(tmp_path.iterdir())


def test_server_logs_and_what_was_measured_stay(tmp_path: Path) -> None:
    failed, measured = RunFolder(tmp_path / "failed"), RunFolder(tmp_path / "measured")
    end_with(TuningError("it does not start"), failed)
    end_with(InputError("another model's"), measured, measured=True)
    assert failed.trial("m", 0).exists()
    assert measured.trial("m", 0).exists()


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    end_with(InputError("no such input"), RunFolder(tmp_path))
    assert tmp_path.exists()


def test_only_a_run_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="not a run folder"), RunFolder(tmp_path).opened(resume=True):
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
