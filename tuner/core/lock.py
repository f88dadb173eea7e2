"""A lock on a folder, which ends with its holder however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.core.errors import JobError

LOCK = ".lock"
"""The name of the file by which a folder is held."""


@contextmanager
def locked(folder: Path, *, option: str, holder: str) -> Iterator[None]:
    """Hold a folder, which is made where there is none.

    Args:
        folder: Where the lock file lies.
        option: What named the folder, to begin an error with.
        holder: Who else may have it, in the words of the error.

    Raises:
        JobError: somebody else has it, or it cannot be used.
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
        except OSError as error:  # as of some network file systems
            raise JobError(f"{option}: {folder}: cannot be locked: {error.strerror}; choose another folder") from None
        yield
