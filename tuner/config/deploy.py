"""Replaces config files in the user's repository, atomically.

Only `replace_config` writes to the user's repository.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuner.core.atomic_file import replace_atomically, status_of
from tuner.core.errors import ConfigError


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


def replace_config(path: Path, new_text: str, *, expected_sha256: str | None) -> Path | None:
    """Replace a config.pbtxt in place, atomically, and keep a backup.

    The target of a symbolic link is replaced. Its mode is kept, and its owner if possible.

    Args:
        path: The config.pbtxt.
        new_text: The new text.
        expected_sha256: The result of `sha256_of` when `new_text` was made; None: there was no file.

    Returns:
        The backup, in the same folder: `config.pbtxt.bak-YYYYmmdd-HHMMSS` in local time, with a number if that exists.
        None if there was no file.

    Raises:
        ConfigError: the file has changed meanwhile, or cannot be written; nothing is written then.
    """
    try:
        target = path.resolve()
        before = _Before.of(target)
        sha256 = before and hashlib.sha256(before.content).hexdigest()
        if sha256 != expected_sha256:
            how = "is gone" if not sha256 else "has changed" if expected_sha256 else "was created"
            raise ConfigError(f"{path}: {how} since it was read; nothing was written")
        return _replace(target, new_text.encode(), before)
    except (OSError, RuntimeError) as error:  # before Python 3.13, resolve() raises RuntimeError for circular links
        raise ConfigError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


@dataclass(frozen=True)
class _Before:
    """The content and status of a file before it is replaced."""

    content: bytes
    status: os.stat_result

    @classmethod
    def of(cls, path: Path) -> _Before | None:
        status = status_of(path)
        return status and cls(path.read_bytes(), status)


def _replace(target: Path, content: bytes, before: _Before | None) -> Path | None:
    if not before:
        replace_atomically(target, content, None)
        return None
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    backup = _free(target.with_name(f"{target.name}.bak-{stamp}"))
    replace_atomically(backup, before.content, before.status)
    try:
        replace_atomically(target, content, before.status)
    except BaseException:
        backup.unlink(missing_ok=True)
        raise
    return backup


def is_beside(name: str, config: str) -> bool:
    """Whether a name is that of a backup, or of a temporary file, that `replace_config` writes beside a config."""
    return name.startswith((f"{config}.bak-", f".{config}."))


def _free(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not os.path.lexists(name))
