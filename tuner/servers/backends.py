"""Finds the backend that a model needs, and checks by files whether a Triton on this machine has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tuner.config.repository import ModelFolder
from tuner.core.errors import ConfigError, JobError
from tuner.servers.installation import TritonInstallation

# Backends by `platform`, and by file name if a config has neither (Triton's `backend_config.cc`).
_OF_PLATFORM = {
    "tensorrt_plan": "tensorrt",
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}
_OF_FILE = {
    "model.plan": "tensorrt",
    "model.onnx": "onnxruntime",
    "model.pt": "pytorch",
    "model.graphdef": "tensorflow",
    "model.savedmodel": "tensorflow",
    "model.xml": "openvino",
    "model.py": "python",
}


def check_backends(
    models: Sequence[ModelFolder], installation: TritonInstallation, arguments: Sequence[str] = ()
) -> None:
    """Check that Triton has the backend of at least one of the models; models without a backend fail at their launch.

    Raises:
        JobError: Triton has none of the models' backends; the message is about the first model.
    """
    missing = [why_no_backend(model, installation, arguments) for model in models]
    if missing and all(missing):
        raise JobError(missing[0])


def why_no_backend(model: ModelFolder, installation: TritonInstallation, arguments: Sequence[str] = ()) -> str:
    """Why Triton lacks the backend of a model, in one line; empty: it has the backend, or the files do not show it.

    Args:
        model: The model to serve.
        installation: The Triton.
        arguments: The user's arguments for Triton, which may set another backend folder.
    """
    name, folder = _backend_of(model), installation.backend_folder(arguments)
    if not name or folder is None or (folder / name).exists():
        return ""
    beside = (model.path, *(model.path / str(version) for version in model.versions))
    if any((place / f"libtriton_{name}.so").exists() for place in beside):
        return ""
    return (
        f"{model.name}: no backend {name!r} in {installation.binary} (available: {_in_words(folder)}); choose another "
        "Triton by --triton-path, another backend folder by --triton-arg=--backend-directory=DIR, or a container "
        "by --image"
    )


def backends_in_words(installation: TritonInstallation, arguments: Sequence[str] = ()) -> str:
    """The backends of a Triton and their folder, as text."""
    folder = installation.backend_folder(arguments)
    if folder is None:
        return "no backend folder beside it; set one by --triton-arg=--backend-directory=DIR"
    return _in_words(folder)


def _in_words(folder: Path) -> str:
    return f"{', '.join(_names(folder)) or 'none'} in {folder}"


def _names(folder: Path) -> Iterable[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError:
        return ()


def _backend_of(model: ModelFolder) -> str | None:
    """The name of the model's backend; None: it has none, or the files do not show it."""
    try:
        config = model.config.proto if model.config else None
    except ConfigError:
        return None
    if config and (config.backend or config.platform or config.HasField("ensemble_scheduling")):
        return config.backend or _OF_PLATFORM.get(config.platform)
    for version in reversed(model.versions):
        for file, backend in _OF_FILE.items():
            if (model.path / str(version) / file).exists():
                return backend
    return None
