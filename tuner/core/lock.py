"""A lock on a folder. It is released when its process ends, even when killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.core.errors import JobError

LOCK = ".lock"
"""The name of the lock file."""


@contextmanager
def locked(folder: Path, *, option: str, holder: str) -> Iterator[None]:
    """Lock a folder, which is created if it does not exist.

    Args:
        folder: The folder.
        option: The option that named the folder, for the message.
        holder: The other holder of the lock, in words, for the message.

    Raises:
        JobError: the folder is locked, or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise JobError(f"{option}: {folder}: cannot be used: {error.strerror}") from None
    with os.fdopen(lock):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(f"{folder}: in use by {holder}") from None
        except OSError as error:  # some network file systems have no locks
            raise JobError(f"{option}: {folder}: cannot be locked: {error.strerror}; choose another folder") from None
        yield
