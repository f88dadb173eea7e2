"""Temporary folders named by their owner's mark, so that the folders of killed runs can be found and removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuner.core.mark import Mark

_PREFIX = "work-of-"


@contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder, which is removed when the context is left."""
    folder = Path(tempfile.gettempdir()) / f"{_PREFIX}{Mark.new()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned_work() -> tuple[str, ...]:
    """Remove this user's folders whose owner is gone. Returns their paths."""
    abandoned = [folder for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*") if _is_abandoned(folder)]
    for folder in abandoned:
        shutil.rmtree(folder, ignore_errors=True)
    return tuple(sorted(map(str, abandoned)))


def _is_abandoned(folder: Path) -> bool:
    mark = Mark.of(folder.name.removeprefix(_PREFIX))
    try:
        return mark is not None and mark.abandoned and folder.lstat().st_uid == os.geteuid()
    except FileNotFoundError:  # removed meanwhile
        return False
