"""Staging: a copy of a model repository for the configs of candidates."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tuner.config.folders import walk
from tuner.config.patch import Patch
from tuner.config.repository import CONFIG, ModelRepository
from tuner.core.atomic_file import replace_atomically
from tuner.core.errors import RepositoryError, nearest


@dataclass(frozen=True)
class StagedRepository:
    """A copy of a repository, which may be changed.

    Attributes:
        path: The folder to give Triton as its model repository; absolute.
        models: The names of the models in it.
    """

    path: Path
    models: tuple[str, ...]
    _originals: dict[str, bytes | None] = field(default_factory=dict, compare=False)

    def apply(self, model: str, patch: Patch) -> None:
        """Write the files of a patch, and restore those of the patch before it that this one does not name.

        Args:
            model: The tuned model.
            patch: The patch; a model without a config in it has no config.pbtxt.

        Raises:
            RepositoryError: a model does not exist, or a file cannot be written.
        """
        self.write_config(model, patch.config or None)
        for path in dict.fromkeys([*self._originals, *patch.files]):
            self._check_model(path.partition("/")[0])
            if path in patch.files:
                if path not in self._originals:
                    self._originals[path] = self._read(path)
                self._write(self.path / path, patch.files[path].encode())
            else:
                self._write(self.path / path, self._originals[path])

    def write_config(self, model: str, text: str | None) -> None:
        """Write a model's config.pbtxt atomically; None: remove it.

        Raises:
            RepositoryError: the model does not exist, or its config cannot be written.
        """
        self._check_model(model)
        self._write(self.path / model / CONFIG, None if text is None else text.encode())

    def _check_model(self, model: str) -> None:
        if model not in self.models:
            raise RepositoryError(f"{self.path}: no model {model!r}{nearest(model, self.models)}")

    def _read(self, path: str) -> bytes | None:
        """The content of a file that a patch is about to replace; None: there is none."""
        try:
            return (self.path / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RepositoryError(f"{self.path / path}: cannot be read: {error.strerror}") from error

    @staticmethod
    def _write(file: Path, content: bytes | None) -> None:
        """Replace a file, or a link to the user's file, atomically; None: remove it."""
        try:
            if content is None:
                file.unlink(missing_ok=True)
            else:
                replace_atomically(file, content, None)
        except OSError as error:
            raise RepositoryError(f"{file}: cannot be written: {error.strerror}") from error


def stage(repository: ModelRepository, into: Path) -> StagedRepository:
    """Copy a repository as folders and links.

    Folders are real, so that Triton and its backends never write to the user's repository (`__pycache__`). Files are
    absolute, resolved links to the user's files, but each config.pbtxt is copied. Files that
    `tuner.config.folders.walk` ignores are omitted.

    Args:
        repository: The user's repository, which is only read.
        into: The folder to create; an existing one must be empty.

    Raises:
        RepositoryError: `into` lies in the repository or is not empty, or the copy cannot be made.
    """
    path = into.resolve()
    for users in (repository.path, *(model.path for model in repository.models)):
        if path.is_relative_to(users.resolve()):
            raise RepositoryError(f"{into}: lies in the model repository {users}, which is never written to")
    names = tuple(model.name for model in repository.models)
    configs = {Path(name) / CONFIG for name in names}
    try:
        entries = list(walk(repository.path))
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RepositoryError(f"{into}: is not empty; the copy of a model repository needs an empty folder")
        for entry in entries:
            copy = path / entry.relative
            if entry.is_folder:
                copy.mkdir()
            elif entry.relative in configs:
                shutil.copyfile(entry.path, copy)
            else:
                copy.symlink_to(entry.path.resolve())
    except OSError as error:
        raise RepositoryError(f"{repository.path}: cannot be staged in {into}: {error}") from error
    return StagedRepository(path, names)
