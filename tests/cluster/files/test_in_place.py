"""A repository that a host already has."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tuner.cluster.files.in_place import first_difference
from tuner.cluster.files.manifest import HashMemory, Manifest, list_repository
from tuner.config.repository import ModelRepository
from tuner.core.errors import RepositoryError


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    folder = tmp_path / "models"
    (folder / "mlp/1").mkdir(parents=True)
    (folder / "mlp/config.pbtxt").write_text('backend: "python"')
    (folder / "mlp/1/model.py").write_text('open("../common/labels")')
    (folder / "mlp/1/weights").write_bytes(b"0" * (1 << 20))
    os.utime(folder / "mlp/1/weights", (1000, time.time() - 60))
    (tmp_path / "common").mkdir()
    (tmp_path / "common/labels").write_text("cat")
    shutil.copytree(folder, tmp_path / "host/repo")
    shutil.copytree(tmp_path / "common", tmp_path / "host/common")
    return list_repository(ModelRepository.open(folder), HashMemory(None), lambda _: None).manifest


def test_an_equal_repository_passes_whatever_its_folder_is_called(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "host/unrelated").touch()
    (tmp_path / "host/repo/mlp/1/__pycache__").mkdir()
    assert first_difference(manifest, tmp_path / "host/repo", HashMemory(None)) == ""


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("rm -r repo", "models: no such folder"),
        ("rm repo/mlp/1/model.py", "models/mlp/1/model.py: no such file"),
        ("rm -r repo/mlp/1", "models/mlp/1: no such folder"),
        ("echo >> repo/mlp/config.pbtxt", "models/mlp/config.pbtxt: has 18 bytes instead of 17"),
        ("mkdir repo/mlp/2", "models/mlp/2: is not in the repository of this run"),
        ("touch repo/mlp/new", "models/mlp/new: is not in the repository of this run"),
        ("printf 'backend: \"pythom\"' > repo/mlp/config.pbtxt", "models/mlp/config.pbtxt: has other contents"),
        ("printf dog > common/labels", "common/labels: has other contents"),
        ("rm common/labels", "common/labels: no such file"),
        (
            "touch -r repo ref; printf 1 | dd of=repo/mlp/1/weights conv=notrunc status=none",
            "models/mlp/1/weights: has other contents",
        ),
    ],
)
def test_the_first_difference_is_named(manifest: Manifest, tmp_path: Path, change: str, difference: str) -> None:
    assert os.system(f"cd {tmp_path}/host && {change}") == 0  # noqa: S605 (what the test says)
    assert first_difference(manifest, tmp_path / "host/repo", HashMemory(None)) == difference


def test_big_files_are_hashed_once_on_each_host(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "host/repo"
    memory = tmp_path / "hashes.json"
    assert first_difference(manifest, path, HashMemory(memory)) == ""
    small = {file.path.rpartition("/")[2]: file.sha256 for file in manifest.files if file.size < 1000}
    monkeypatch.setattr("tuner.cluster.files.manifest.sha256_of", lambda file: small[file.name])
    assert first_difference(manifest, path, HashMemory(memory)) == ""


def test_a_manifest_from_elsewhere_is_checked_first(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="'..' is not a folder name"):
        first_difference(Manifest("r", ("r", "../x"), ()), tmp_path, HashMemory(None))
