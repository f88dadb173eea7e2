"""Which backend a model needs, and whether a Triton of this machine has it, as far as files tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tuner.config.repository import ModelFolder
from tuner.core.errors import ConfigError, JobError
from tuner.servers.installation import TritonInstallation

# What Triton takes in place of the name of a backend, and in place of both (`backend_config.cc`).
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
    """See that a Triton has a backend for one of the models at least; the others fail in their turn.

    Raises:
        JobError: it has none for any of them; the message is about the first.
    """
    missing = [why_no_backend(model, installation, arguments) for model in models]
    if missing and all(missing):
        raise JobError(missing[0])


def why_no_backend(model: ModelFolder, installation: TritonInstallation, arguments: Sequence[str] = ()) -> str:
    """That a Triton has no backend for a model, in one line; empty when it has, or no file tells.

    Args:
        model: What is to be served.
        installation: The Triton.
        arguments: Of the user's, which may name another folder of backends.
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
    """Which backends a Triton has, for people."""
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
    """The name of its backend; None: it has none, or no file tells."""
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
