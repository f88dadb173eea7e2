"""Replaces files in the user's repository, all or none of them.

Only `replace_files` writes to the user's repository.

One file is replaced by a rename, which is atomic. For several, the new contents and the backups are written first, and
then a journal that names them. From then on the replacement counts: a process that is killed while it renames them
leaves the journal, with which `finish_replacing` does the rest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuner.core.atomic_file import remove_unfinished, replace_atomically, status_of, sync_folder, write_beside
from tuner.core.errors import ConfigError

_BYPRODUCT = re.compile(r"\.bak-\d{8}-\d{6}(?:-\d+)?$|^\..+\.new-[0-9a-f]{8}-")

JOURNAL = ".tritontune-replacing.json"
"""The journal of a replacement of several files, in the repository."""


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file's bytes in hex, links followed; None when there is no file.

    Raises:
        ConfigError: the file exists, but cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Replacement:
    """A file to replace.

    Attributes:
        path: The file.
        text: Its new text.
        expected_sha256: The result of `sha256_of` when `text` was made; None: there was no file.
    """

    path: Path
    text: str
    expected_sha256: str | None


def replace_files(repository: Path, replacements: Sequence[Replacement]) -> tuple[Path | None, ...]:
    """Replace files of a model repository, all or none, and keep a backup of each.

    The targets of symbolic links are replaced. Their modes are kept, and their owners if possible.

    Args:
        repository: The repository; the journal of several files lies in it.
        replacements: The files.

    Returns:
        The backup of each file, in its folder: `config.pbtxt.bak-YYYYmmdd-HHMMSS` in local time, with a number if that
        exists. None if there was no file.

    Raises:
        ConfigError: a file has changed meanwhile, or cannot be written; no file is replaced then.
    """
    finish_replacing(repository)
    swaps: list[_Swap] = []
    path = repository
    committed = False
    try:
        # Left by a process that was killed before its replacement counted.
        for path in (*(replacement.path for replacement in replacements), repository / JOURNAL):
            remove_unfinished(path)
        for replacement in replacements:
            path = replacement.path
            swaps.append(_prepared(replacement))
        if len(swaps) == 1:
            swaps[0].rename()
            committed = True
        elif swaps:
            path = repository / JOURNAL
            replace_atomically(path, json.dumps([swap.as_json() for swap in swaps]).encode(), None)
            committed = True
            finish_replacing(repository)
    except (OSError, RuntimeError) as error:  # before Python 3.13, resolve() raises RuntimeError for circular links
        raise ConfigError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        if not committed:
            for swap in swaps:
                swap.discard()
    return tuple(swap.backup for swap in swaps)


def is_half_replaced(repository: Path) -> bool:
    """Whether a process was killed while it replaced files of a repository."""
    return os.path.lexists(repository / JOURNAL)


def finish_replacing(repository: Path) -> bool:
    """Finish the replacement that a killed process has begun. Returns whether there was one.

    Raises:
        ConfigError: a file cannot be written, or the journal is damaged.
    """
    journal = repository / JOURNAL
    try:
        swaps = [_Swap.of_json(item) for item in json.loads(journal.read_text(encoding="utf-8"))]
        for swap in swaps:
            swap.rename()
        journal.unlink()
        sync_folder(repository)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"{journal}: {error.filename}: cannot be replaced: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{journal}: is damaged; compare the files with their backups, and remove it") from error
    return True


@dataclass(frozen=True)
class _Swap:
    """A file, its new content in a file beside it, and its backup.

    Attributes:
        target: The file to replace.
        new: The file with the new content.
        backup: The backup; None: there was no file.
    """

    target: Path
    new: Path
    backup: Path | None

    def rename(self) -> None:
        """Put the new content in place; does nothing if that is done."""
        with suppress(FileNotFoundError):
            self.new.replace(self.target)
            sync_folder(self.target.parent)

    def discard(self) -> None:
        """Remove what was prepared."""
        for file in (self.new, self.backup):
            if file:
                file.unlink(missing_ok=True)

    def as_json(self) -> list[str | None]:
        """For the journal."""
        return [str(self.target), str(self.new), str(self.backup) if self.backup else None]

    @classmethod
    def of_json(cls, item: Sequence[str | None]) -> _Swap:
        """From the journal."""
        target, new, backup = item
        return cls(Path(target or ""), Path(new or ""), Path(backup) if backup else None)


@dataclass(frozen=True)
class _Before:
    """The content and status of a file before it is replaced."""

    content: bytes
    status: os.stat_result

    @classmethod
    def of(cls, path: Path) -> _Before | None:
        status = status_of(path)
        return status and cls(path.read_bytes(), status)


def _prepared(replacement: Replacement) -> _Swap:
    """Write the new content and the backup of a file beside it.

    Raises:
        ConfigError: the file has changed meanwhile.
        OSError: a file cannot be written; nothing is left behind.
    """
    target = replacement.path.resolve()
    before = _Before.of(target)
    sha256 = before and hashlib.sha256(before.content).hexdigest()
    if sha256 != replacement.expected_sha256:
        how = "is gone" if not sha256 else "has changed" if replacement.expected_sha256 else "was created"
        raise ConfigError(f"{replacement.path}: {how} since it was read; nothing was written")
    backup = None
    if before:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        backup = _free(target.with_name(f"{target.name}.bak-{stamp}"))
        replace_atomically(backup, before.content, before.status)
    try:
        new = write_beside(target, replacement.text.encode(), before.status if before else None)
    except BaseException:
        if backup:
            backup.unlink(missing_ok=True)
        raise
    return _Swap(target, new, backup)


def is_byproduct(name: str) -> bool:
    """Whether a name is that of a backup, or of a temporary file, that `replace_files` writes beside a file."""
    return bool(_BYPRODUCT.search(name))


def _free(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not os.path.lexists(name))
