from __future__ import annotations

import codecs
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter, which `tmp_path` is not."""
    path = Path(tempfile.mkdtemp(prefix="tritontune-test-"))
    path.chmod(0o755)
    yield path
    for folder in path.rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def as_plain_user() -> Callable[[], AbstractContextManager[None]]:
    """Makes permissions count also where tests run as root, to whom everything is permitted."""

    @contextmanager
    def plain() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        # Python remembers an encoding whose module it may not read as unknown, for the rest of the process.
        codecs.lookup("ascii")
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return plain
