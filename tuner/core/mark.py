"""Marks: names of servers that identify the process that owns them.

The mark on a server's leftovers tells whether its owner still runs. It is in the environment of all processes of the
server, and in the names of its shared memory files and its folder.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import Self

from tuner.core.lease import FORM, Lease, own_lease, parts_of

VARIABLE = "TRITONTUNE_SERVER"
"""The environment variable that holds the mark."""

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (the kernel's folder for shared memory, not for temporary files)
_FORM = re.compile(rf"tritontune-{FORM}-(\d+)(?:-.*)?", re.ASCII)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Mark(Lease):
    """The name of a server: the lease of its owner, and a number.

    Marks of versions without leases do not identify the host, so their files are never removed.

    Attributes:
        number: The number of the server, counted by its owner.
    """

    number: int

    @classmethod
    def new(cls) -> Self:
        """The mark of the next server of this process."""
        own = own_lease()
        return cls(own.host, own.boot, own.namespace, own.pid, own.started, next(_numbers))

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Parse the variable, or the name of a file or folder; None: it is not a mark."""
        match = _FORM.fullmatch(text)
        return cls(*parts_of(match), int(match[6])) if match else None

    def __str__(self) -> str:
        return f"tritontune-{super().__str__()}-{self.number}"

    @property
    def folder(self) -> Path:
        """The server's folder. Its path is short, as models create sockets in it (`sun_path`: 108 bytes at most)."""
        return Path(tempfile.gettempdir()) / str(self)

    @property
    def shared_memory_prefix(self) -> str:
        """The prefix of the server's file names in `/dev/shm`."""
        return f"{self}-"

    def remove_files(self) -> None:
        """Remove the folder and the shared memory files; the processes must have ended."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for file in _SHARED_MEMORY.glob(f"{self.shared_memory_prefix}*"):
            file.unlink(missing_ok=True)


def marks_on_files() -> Iterator[Mark]:
    """The marks of all folders and shared memory files of this user."""
    for place in (Path(tempfile.gettempdir()), _SHARED_MEMORY):
        for path in place.glob("tritontune-*"):
            if (mark := Mark.of(path.name)) and _owner(path) == os.geteuid():
                yield mark


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # removed meanwhile
        return None
