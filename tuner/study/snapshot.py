"""A consistent copy of a study's database, made without blocking the run that writes it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.core.errors import JobError

# Seconds to wait for a writer: in all, and between attempts. A run holds the lock for milliseconds.
_TIMEOUT_S = 30.0
_RETRY_S = 0.5
# SQLite's codes for a locked database; Python names them from 3.11 on.
_BUSY, _LOCKED = 5, 6
HELD_TOO_LONG = "locked by another process"
"""The message when a database stays locked."""
_HELD = {_BUSY, _LOCKED}


@contextmanager
def snapshot(database: Path) -> Iterator[Path]:
    """A consistent copy of a study's database that exists within the context.

    The original is only read, so this works during a run, and in read-only folders.

    Raises:
        JobError: the file is not such a database, or cannot be read.
    """
    with TemporaryDirectory(prefix="tritontune-") as folder:
        copy = Path(folder) / database.name
        try:
            _copy(database, copy)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise JobError(f"{database}: cannot be read as the study of a run: {reason}") from None
        yield copy


def _copy(database: Path, copy: Path) -> None:
    try:
        _back_up(database, copy)
    except sqlite3.OperationalError:
        # A killed run left a transaction to roll back. The rollback changes the file, so it is done on a copy.
        if not (journal := database.with_name(f"{database.name}-journal")).exists():
            raise
        begun = copy.with_name("begun.db")
        shutil.copyfile(journal, begun.with_name("begun.db-journal"))
        shutil.copyfile(database, begun)
        _back_up(begun, copy, mode="rw")


def _back_up(database: Path, copy: Path, mode: str = "ro") -> None:
    uri, deadline = f"{database.absolute().as_uri()}?mode={mode}", time.monotonic() + _TIMEOUT_S

    def look(status: int, _remaining: int, _total: int) -> None:
        if status in _HELD and time.monotonic() > deadline:
            raise TimeoutError(HELD_TOO_LONG)

    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_RETRY_S)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target, progress=look)
