"""Files beside a model repository that its models reach by relative paths, such as `../common`.

Links to these files are placed beside the staged copy of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tuner.config.folders import walk
from tuner.config.repository import ModelRepository
from tuner.config.staging import StagedRepository
from tuner.core.errors import RepositoryError

# Code that matches may refer to files outside of its own folder.
_UPWARDS = re.compile(r"\.\.|\bparents?\b|\bdirname\b")
_WORD = re.compile(r"[\w.-]+")
_LARGEST_SOURCE = 1 << 20
# A larger folder becomes a single link instead of a copy of links.
_MOST_ENTRIES = 10_000

_MISSING = re.compile(r"No module named|No such file or directory|FileNotFoundError|cannot open shared object")


def place_beside(repository: ModelRepository, staged: StagedRepository) -> tuple[str, ...]:
    """Link files from beside a repository to beside its staged copy, if the models' code names them.

    Folders are real and files are links, so that Python's compiled code is written to the copy.

    Args:
        repository: The user's repository; nothing is written to it, or beside it.
        staged: Its staged copy, in its own folder.

    Returns:
        The names of the linked files and folders.

    Raises:
        RepositoryError: the links cannot be created.
    """
    placed = []
    try:
        for path in paths_beside(repository):
            if not staged.path.is_relative_to(path.resolve()):
                _place(path, staged.path.parent / path.name)
                placed.append(path.name)
    except OSError as error:
        raise RepositoryError(f"{repository.path}: files beside it cannot be linked: {error}") from error
    return tuple(placed)


def paths_beside(repository: ModelRepository) -> list[Path]:
    """The files and folders beside a repository that the models' code names, sorted.

    Raises:
        OSError: the folder of the repository cannot be read.
    """
    names = _named_in_code(repository.path)
    return [
        path
        for path in (sorted(repository.path.absolute().parent.iterdir()) if names else ())
        if path.name in names and path.exists() and not path.samefile(repository.path)
    ]


def copy_hint(message: str, placed: tuple[str, ...]) -> str:
    """A hint for a model that fails to load because of a missing file; empty for other reasons.

    Args:
        message: Triton's reason.
        placed: The names of files beside the staged copy.
    """
    if not _MISSING.search(message):
        return ""
    beside = f"only {', '.join(placed)}" if placed else "nothing"
    return (
        f"; Triton serves a copy of the repository, with {beside} beside it: put missing files into the repository, "
        "use absolute paths, or mount them into a container by --mount"
    )


def _place(path: Path, into: Path) -> None:
    if into.exists():
        return
    entries = list(islice(walk(path), _MOST_ENTRIES + 1)) if path.is_dir() else []
    if not path.is_dir() or len(entries) > _MOST_ENTRIES:
        into.symlink_to(path.resolve())
        return
    into.mkdir()
    for entry in entries:
        copy = into / entry.relative
        if entry.is_folder:
            copy.mkdir()
        else:
            copy.symlink_to(entry.path.resolve())


def _named_in_code(repository: Path) -> set[str]:
    """Words in the models' Python files that may be names of files beside the repository."""
    return {word for text in _sources(repository) if _UPWARDS.search(text) for word in _WORD.findall(text)}


def _sources(repository: Path) -> Iterator[str]:
    for entry in walk(repository):
        if entry.path.suffix == ".py" and not entry.is_folder and entry.status.st_size <= _LARGEST_SOURCE:
            yield entry.path.read_text(encoding="utf-8", errors="replace")
