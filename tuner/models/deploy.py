"""Puts files where people deploy from, whole or not at all.

`replace_config` is the one place from which the user's repository is written to.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import secrets
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from tuner.errors import ConfigError


def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a file's bytes in hex, links followed; None when there is no file.

    Raises:
        ConfigError: it is there and cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def replace_config(path: Path, new_text: str, *, expected_sha256: str | None) -> Path | None:
    """Replace a config.pbtxt in place, whole or not at all, and keep what was there.

    Through a symbolic link, the file that it leads to is replaced. Its mode stays, and its owner where that can be.

    Args:
        path: The config.pbtxt.
        new_text: What it is to say.
        expected_sha256: What `sha256_of` said of it when `new_text` was made; None: there was no file.

    Returns:
        The backup, beside the file that was replaced: `config.pbtxt.bak-YYYYmmdd-HHMMSS` in local time, with a number
        behind that when it is taken. None when there was no file.

    Raises:
        ConfigError: the file has changed meanwhile, or cannot be written. Nothing has changed then.
    """
    try:
        target = path.resolve()
        before = _Before.of(target)
        found = before and hashlib.sha256(before.content).hexdigest()
        if found != expected_sha256:
            how = "is gone" if not found else "has changed" if expected_sha256 else "has come into being"
            raise ConfigError(f"{path}: {how} since it was read; nothing was written")
        return _replace(target, new_text.encode(), before)
    except (OSError, RuntimeError) as error:  # before Python 3.13, resolve() has a RuntimeError for links in a circle
        raise ConfigError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file in one move, so that nobody ever meets half of it; folders on the way are made.

    What was there goes; through a symbolic link, the file that it leads to is replaced, and its mode stays.

    Raises:
        OSError: it cannot be written. Nothing has changed then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _move_in(target, text.encode(), _Before.of(target))


@dataclass(frozen=True)
class _Before:
    """A file as it was."""

    content: bytes
    status: os.stat_result

    @classmethod
    def of(cls, path: Path) -> _Before | None:
        try:
            # For writing too, although nothing is: a file that its owner made read-only is not to be replaced.
            with path.open("r+b") as file:
                return cls(file.read(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return None


def _replace(target: Path, content: bytes, before: _Before | None) -> Path | None:
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    backup = None
    with contextlib.ExitStack() as undo:
        if before:
            backup = _free(target.with_name(f"{target.name}.bak-{stamp}"))
            undo.callback(backup.unlink, missing_ok=True)
            copy = _unfinished(target, f"bak-{stamp}")
            undo.callback(copy.unlink, missing_ok=True)
            _write(copy, before.content, before)
            copy.replace(backup)
        _move_in(target, content, before)
        undo.pop_all()
    return backup


def _move_in(target: Path, content: bytes, before: _Before | None) -> None:
    """Write beside the target, to the disk, and then take its place."""
    new = _unfinished(target, "new")
    with contextlib.ExitStack() as undo:
        undo.callback(new.unlink, missing_ok=True)
        _write(new, content, before)
        new.replace(target)
        undo.pop_all()
    _sync(target.parent)


def _unfinished(target: Path, what: str) -> Path:
    """Where something is written before it takes its place; the name tells who is at it."""
    return target.with_name(f".{target.name}.{what}-{secrets.token_hex(4)}-{os.getpid()}")


def remove_unfinished(path: Path) -> int:
    """Remove what a killed `replace_config` of this file has left beside it. Returns how many files."""
    target = path.resolve()
    abandoned = [
        file
        for file in target.parent.glob(f".{target.name}.*-*")
        if (pid := file.name.rpartition("-")[2]).isdigit()
        and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid)))
    ]
    for file in abandoned:
        file.unlink(missing_ok=True)
    return len(abandoned)


def is_beside(name: str, config: str) -> bool:
    """Whether a file of this name is one that `replace_config` puts beside a config: a backup, or an unfinished one."""
    return name.startswith((f"{config}.bak-", f".{config}."))


def _free(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not os.path.lexists(name))


def _write(path: Path, content: bytes, like: _Before | None) -> None:
    with path.open("xb") as file:
        if like:
            with contextlib.suppress(PermissionError):  # only root can give a file away
                os.fchown(file.fileno(), like.status.st_uid, like.status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(like.status.st_mode))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
