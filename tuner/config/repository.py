"""The model repository on disk: its models and their versions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath

from tuner.config.config import ModelConfig
from tuner.config.deploy import is_byproduct, is_half_replaced
from tuner.config.folders import Entry, walk
from tuner.core.errors import RepositoryError, nearest
from tuner.core.names import why_no_folder

CONFIG = "config.pbtxt"

LARGEST_VERSION = 2**63 - 1
"""The highest version number; Triton crashes at a higher one."""

# Triton's rule (`model_lifecycle.cc`): a folder is a version if its name begins with a number (C++'s `std::stoll`). A
# name of several characters that begins with a zero is not a version.
_VERSION = re.compile(r"[ \t\n\v\f\r]*(?P<number>[+-]?[0-9]+)")

_WHOLE_BYTES = 64 * 2**20
_END_BYTES = 2**20


@dataclass(frozen=True)
class ModelFolder:
    """One model on disk.

    Attributes:
        name: The folder's name, by which Triton knows the model.
        path: The folder.
        versions: The numbers of its version folders, ascending. A version folder of an ensemble may be empty.
        misnamed: Folders that Triton counts as a version but cannot load, with that version. It counts `2_old` as
            version 2, but loads the folder `2`.
    """

    name: str
    path: Path
    versions: tuple[int, ...]
    misnamed: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def config(self) -> ModelConfig | None:
        """The config.pbtxt, read on first use; None: the model has none.

        Raises:
            ConfigError: the file cannot be read, or is not a valid config.
        """
        path = self.path / CONFIG
        return ModelConfig.read(path) if os.path.lexists(path) else None

    def size_bytes(self) -> int:
        """The size of all its files, links followed; `__pycache__` does not count.

        Raises:
            RepositoryError: the folder cannot be read.
        """
        return sum(entry.status.st_size for entry in self._files())

    def fingerprint(self) -> str:
        """A SHA-256 in hex over the paths and contents of the model's files, without its config.pbtxt and its backups.

        For a file above 64 MiB, only the size and the first and last MiB count, to save time. Retrained weights differ
        in these. Links are followed, and `__pycache__` is ignored.

        Raises:
            RepositoryError: a file cannot be read.
        """
        digest = hashlib.sha256()
        for entry in self._files():
            folder, name = entry.relative.parent, entry.relative.name
            if (folder == PurePath() and name == CONFIG) or is_byproduct(name):
                continue
            try:
                content = _content_digest(entry)
            except OSError as error:
                raise RepositoryError(f"{entry.path}: cannot be read: {error.strerror}") from error
            digest.update(hashlib.sha256(os.fsencode(entry.relative)).digest() + content)
        return digest.hexdigest()

    def _files(self) -> list[Entry]:
        try:
            return [entry for entry in walk(self.path) if not entry.is_folder]
        except OSError as error:
            raise RepositoryError(f"{self.path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class ModelRepository:
    """A folder of model folders.

    Attributes:
        path: The path, as given.
        models: The models, sorted by name.
    """

    path: Path
    models: tuple[ModelFolder, ...]

    @classmethod
    def open(cls, path: Path) -> ModelRepository:
        """Find the models of a repository; each config is read on first use.

        Raises:
            RepositoryError: the folder does not exist, cannot be read, or holds no models; or an export into it was
            killed midway.
        """
        if is_half_replaced(path):
            way_out = "tritontune export RUN_DIR --in-place finishes it"
            raise RepositoryError(f"{path}: an export of several files was killed midway; {way_out}")
        try:
            folders = sorted(path.iterdir())
        except OSError as error:
            raise RepositoryError(_why_not_listed(path, error)) from error
        models = tuple(model for model in map(_model, folders) if model)
        if not models:
            raise RepositoryError(_why_no_models(path, folders))
        return cls(path, models)

    def model(self, name: str) -> ModelFolder:
        """The model with this name.

        Raises:
            RepositoryError: the repository has no such model; the message has the nearest name.
        """
        for model in self.models:
            if model.name == name:
                return model
        if reason := why_no_folder(name):
            raise RepositoryError(f"{self.path}: no model {name!r}: the name {reason}")
        try:
            list((self.path / name).iterdir())
        except PermissionError as error:
            raise RepositoryError(f"{self.path / name}: cannot be read: {error.strerror}") from error
        except OSError:
            pass
        hint = nearest(name, (model.name for model in self.models))
        raise RepositoryError(f"{self.path}: no model {name!r}{hint}")


def _model(path: Path) -> ModelFolder | None:
    try:
        within = list(path.iterdir())
        taken = {folder.name: version for folder in within if (version := _version(folder)) is not None}
    except OSError:  # a file or an unreadable folder, such as a volume's lost+found
        return None
    versions = tuple(
        sorted(version for name, version in taken.items() if name == str(version) and 0 <= version <= LARGEST_VERSION)
    )
    misnamed = {name: version for name, version in sorted(taken.items()) if version not in versions}
    return ModelFolder(path.name, path, versions, misnamed) if versions or path / CONFIG in within else None


def _version(path: Path) -> int | None:
    """The version that Triton reads from a folder's name; None: Triton ignores the folder."""
    match = _VERSION.match(path.name)
    if match is None or (len(path.name) > 1 and path.name.startswith("0")) or not path.is_dir():
        return None
    return int(match["number"])


def _is_version(path: Path) -> bool:
    return path.name == str(_version(path))


def _why_not_listed(path: Path, error: OSError) -> str:
    if isinstance(error, NotADirectoryError) and path.is_file():
        hint = f"; did you mean {_parent(path.parent)}?" if path.name == CONFIG else ""
        return f"{path}: is a file; a model repository is a folder of model folders{hint}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{path}: no such folder"
    return f"{path}: cannot be read: {error.strerror}"


def _why_no_models(path: Path, within: list[Path]) -> str:
    if path / CONFIG in within or any(_is_version(folder) and _has_files(folder) for folder in within):
        return f"{path}: is the folder of one model; did you mean its parent {_parent(path)}?"
    return f"{path}: no models: no folder in it has a {CONFIG} or a version folder such as 1"


def _parent(path: Path) -> Path:
    return path.parent if path.name not in {"", ".."} else path.resolve().parent


def _has_files(path: Path) -> bool:
    with contextlib.suppress(OSError):  # an unreadable folder counts as empty
        return any(not entry.is_folder for entry in walk(path))
    return False


def _content_digest(entry: Entry) -> bytes:
    digest = hashlib.sha256()
    size = entry.status.st_size
    with entry.path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            while block := file.read(_END_BYTES):
                digest.update(block)
        else:
            digest.update(b"%d" % size + file.read(_END_BYTES))
            file.seek(-_END_BYTES, os.SEEK_END)
            digest.update(file.read())
    return digest.digest()
