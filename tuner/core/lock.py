"""A lock on a folder. It is released when its process ends, even when killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuner.core.errors import JobError

LOCK = ".lock"
"""The name of the lock file, which says who holds it."""

_MOST_BYTES = 300


@contextmanager
def locked(folder: Path, *, option: str, holder: str, about: str = "") -> Iterator[None]:
    """Lock a folder, which is created if it does not exist.

    Args:
        folder: The folder.
        option: The option that named the folder, for the message.
        holder: The other holder of the lock, in words, for the message.
        about: What the messages of others add about this holder.

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
            raise JobError(f"{folder}: in use by {holder}{_who(lock)}") from None
        except OSError as error:  # some network file systems have no locks
            raise JobError(f"{option}: {folder}: cannot be locked: {error.strerror}; choose another folder") from None
        with suppress(OSError):  # the disk may be full; then others hear less
            os.ftruncate(lock, 0)
            os.pwrite(lock, about.encode(), 0)
        yield


def _who(lock: int) -> str:
    """The holder by what it wrote into the lock file, in parentheses; empty: unknown."""
    text = os.pread(lock, _MOST_BYTES, 0).decode(errors="replace")
    return f" ({text})" if text.isprintable() and text else ""
