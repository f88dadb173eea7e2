"""Names a server after the process that owns it.

So whoever meets its traces later can tell whether that process lives. The name is in the environment of all the
server's processes, and in the names of its shared memory files and its folder.
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

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where the kernel has it, not a place for temporary files)
_FORM = re.compile(rf"tritontune-{FORM}-(\d+)(?:-.*)?", re.ASCII)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Mark(Lease):
    """The name of one server: the lease of its owner, and a number.

    Marks of before there were leases do not say of which host they are, so what carries one is left alone.

    Attributes:
        number: The number of the server, counted by its owner.
    """

    number: int

    @classmethod
    def new(cls) -> Self:
        """For the next server of this process."""
        own = own_lease()
        return cls(own.host, own.boot, own.namespace, own.pid, own.started, next(_numbers))

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Read it from the variable, or from the name of a file or folder; None when that is not ours."""
        match = _FORM.fullmatch(text)
        return cls(*parts_of(match), int(match[6])) if match else None

    def __str__(self) -> str:
        return f"tritontune-{super().__str__()}-{self.number}"

    @property
    def folder(self) -> Path:
        """The server's own folder. Its path is short, as models make sockets below it (108 characters at most)."""
        return Path(tempfile.gettempdir()) / str(self)

    @property
    def shared_memory_prefix(self) -> str:
        """With which the names of its files in `/dev/shm` begin."""
        return f"{self}-"

    def remove_files(self) -> None:
        """Remove the folder and the shared memory files; its processes must be gone."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for file in _SHARED_MEMORY.glob(f"{self.shared_memory_prefix}*"):
            file.unlink(missing_ok=True)


def marks_on_files() -> Iterator[Mark]:
    """The mark of every folder and shared memory file of this user that has one."""
    for place in (Path(tempfile.gettempdir()), _SHARED_MEMORY):
        for path in place.glob("tritontune-*"):
            if (mark := Mark.of(path.name)) and _owner(path) == os.geteuid():
                yield mark


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # removed meanwhile
        return None
