from __future__ import annotations

from pathlib import Path

import pytest

from tuner.config.repository import ModelFolder, ModelRepository
from tuner.core.errors import JobError
from tuner.servers.backends import backends_in_words, check_backends, why_no_backend
from tuner.servers.installation import TritonInstallation


@pytest.fixture
def triton(tmp_path: Path) -> TritonInstallation:
    """One that has the Python backend alone."""
    (tmp_path / "triton/backends/python").mkdir(parents=True)
    return TritonInstallation(tmp_path / "triton/bin/tritonserver", "2.99.0", "here")


def model(folder: Path, config: str | None = None, *files: str) -> ModelFolder:
    for file in (*files, "1/.keep"):
        path = folder / "repository/m" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if config is not None:
        (folder / "repository/m/config.pbtxt").write_text(config, encoding="utf-8")
    return ModelRepository.open(folder / "repository").model("m")


@pytest.mark.parametrize(
    ("config", "files", "backend"),
    [
        ('backend: "onnxruntime"', [], "onnxruntime"),
        ('platform: "pytorch_libtorch"', [], "pytorch"),
        (None, ["1/model.onnx"], "onnxruntime"),
        ("max_batch_size: 4", ["1/model.plan"], "tensorrt"),
        (None, ["1/model.savedmodel/saved_model.pb"], "tensorflow"),
    ],
)
def test_a_backend_that_is_not_there(
    config: str | None, files: list[str], backend: str, triton: TritonInstallation, tmp_path: Path
) -> None:
    wanted = model(tmp_path, config, *files)
    told = why_no_backend(wanted, triton)
    assert told.startswith(
        f"m: no backend {backend!r} in {triton.binary} (available: python in {tmp_path}/triton/backends); "
    )
    assert "--triton-arg=--backend-directory=DIR" in told
    (tmp_path / "others" / backend).mkdir(parents=True)
    assert not why_no_backend(wanted, triton, [f"--backend-directory={tmp_path / 'others'}"])


@pytest.mark.parametrize(
    ("config", "files"),
    [
        ('backend: "python"', []),
        (None, ["1/model.py"]),
        # No file tells.
        (None, ["1/weights"]),
        ('platform: "ensemble" ensemble_scheduling { }', []),
        ("max_batch_size: : 1", []),
        # A backend of the model's own.
        ('backend: "mine"', ["libtriton_mine.so"]),
        ('backend: "mine"', ["1/libtriton_mine.so"]),
    ],
)
def test_a_backend_that_is_there_or_of_which_no_file_tells(
    config: str | None, files: list[str], triton: TritonInstallation, tmp_path: Path
) -> None:
    assert not why_no_backend(model(tmp_path, config, *files), triton)


def test_a_triton_whose_folder_of_backends_nobody_knows(tmp_path: Path) -> None:
    bare = TritonInstallation(tmp_path / "bin/tritonserver", "2.99.0", "here")
    assert not why_no_backend(model(tmp_path, 'backend: "onnxruntime"'), bare)
    assert backends_in_words(bare).startswith(
        "no backend folder beside it; set one by --triton-arg=--backend-directory=DIR"
    )
    assert backends_in_words(bare, ["--backend-directory=/nowhere"]) == "none in /nowhere"


def test_one_model_that_can_be_served_is_enough(triton: TritonInstallation, tmp_path: Path) -> None:
    python, onnx = model(tmp_path / "a", 'backend: "python"'), model(tmp_path / "b", 'backend: "onnxruntime"')
    check_backends([], triton)
    check_backends([onnx, python], triton)
    with pytest.raises(JobError, match="^m: no backend 'onnxruntime' in "):
        check_backends([onnx, onnx], triton)
