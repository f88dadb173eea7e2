"""A study as it is at one moment, read without being in the way of the run that writes it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tuner.core.errors import JobError

# A run writes for some milliseconds at a time; on a slow disk somewhat longer.
_PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.5
# SQLite's codes for a database that somebody writes to: Python has names for them from 3.11 on.
_BUSY, _LOCKED = 5, 6
HELD_TOO_LONG = "locked by another process"
"""Why a database cannot be read that somebody writes to all the time."""
_HELD = {_BUSY, _LOCKED}


@contextmanager
def snapshot(database: Path) -> Iterator[Path]:
    """A copy of a study's database, whole as of one moment, which is there as long as the context is.

    The original is only read, so that this can be done while a run writes to it, and where nothing may be written.

    Raises:
        JobError: it is no such database, or cannot be read.
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
        # What a killed run had begun to write has to be taken back first, which is a change: done on a copy.
        if not (journal := database.with_name(f"{database.name}-journal")).exists():
            raise
        begun = copy.with_name("begun.db")
        shutil.copyfile(journal, begun.with_name("begun.db-journal"))
        shutil.copyfile(database, begun)
        _back_up(begun, copy, mode="rw")


def _back_up(database: Path, copy: Path, mode: str = "ro") -> None:
    uri, gives_up = f"{database.absolute().as_uri()}?mode={mode}", time.monotonic() + _PATIENCE_S

    def look(status: int, _remaining: int, _total: int) -> None:
        if status in _HELD and time.monotonic() > gives_up:
            raise TimeoutError(HELD_TOO_LONG)

    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_LOOK_EVERY_S)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target, progress=look)
