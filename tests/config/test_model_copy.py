from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tuner.config.model_copy import copy_model
from tuner.config.repository import ModelFolder, ModelRepository


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    (tmp_path / "models/mlp/1/variables").mkdir(parents=True)
    (tmp_path / "models/mlp/1/variables/a").write_bytes(b"\0\1")
    (tmp_path / "models/mlp/1/run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "models/mlp/1/run.sh").chmod(0o755)
    (tmp_path / "models/mlp/1/self").symlink_to("..")
    (tmp_path / "models/mlp/config.pbtxt").write_text("max_batch_size: 1")
    (tmp_path / "models/mlp/configs").mkdir()
    (tmp_path / "models/mlp/configs/config.pbtxt").write_text("max_batch_size: 2")
    return ModelRepository.open(tmp_path / "models").model("mlp")


def test_the_files_of_a_model_and_another_config(model: ModelFolder, tmp_path: Path) -> None:
    to = tmp_path / "deep/down/mlp"
    copy_model(model, to, {"config.pbtxt": "max_batch_size: 8"})
    files = {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}
    assert files == {
        "1/run.sh": b"#!/bin/sh\n",
        "1/variables/a": b"\0\1",
        "config.pbtxt": b"max_batch_size: 8",
        "configs/config.pbtxt": b"max_batch_size: 2",
    }
    assert (to / "1/run.sh").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in to.parent.iterdir()] == ["mlp"]


@pytest.mark.parametrize("empty", [False, True])
def test_what_is_there_stays(model: ModelFolder, tmp_path: Path, *, empty: bool) -> None:
    to = tmp_path / "mlp"
    to.mkdir()
    if not empty:
        (to / "mine").touch()
    with pytest.raises(FileExistsError):
        copy_model(model, to, {"config.pbtxt": ""})
    assert [path.name for path in to.iterdir()] == ["mine"] * (not empty)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlp", "models"]


def test_a_copy_that_fails_leaves_nothing(model: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fails)
    with pytest.raises(OSError, match="No space left"):
        copy_model(model, tmp_path / "deploy/mlp", {"config.pbtxt": ""})
    assert list((tmp_path / "deploy").iterdir()) == []
