"""Staging: a copy of a model repository for the configs of candidates."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tuner.config.folders import walk
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

    def write_config(self, model: str, text: str | None) -> None:
        """Write a model's config.pbtxt atomically; None: remove it.

        Raises:
            RepositoryError: the model does not exist, or its config cannot be written.
        """
        if model not in self.models:
            raise RepositoryError(f"{self.path}: no model {model!r}{nearest(model, self.models)}")
        config = self.path / model / CONFIG
        try:
            if text is None:
                config.unlink(missing_ok=True)
            else:
                replace_atomically(config, text.encode(), None)
        except OSError as error:
            raise RepositoryError(f"{config}: cannot be written: {error.strerror}") from error


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
