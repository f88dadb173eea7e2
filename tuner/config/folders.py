"""Walks a folder of the user's as Triton sees it: links followed, and never in a circle."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

_CACHE = "__pycache__"


@dataclass(frozen=True)
class Entry:
    """A folder or a regular file that was found.

    Attributes:
        relative: Its path from where the walk began.
        path: Where it is; links on the way are not resolved.
        status: Of the file or folder itself, or of the one that a link leads to.
    """

    relative: PurePath
    path: Path
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        """A folder, or a link to one; else it is a file."""
        return stat.S_ISDIR(self.status.st_mode)


def walk(root: Path) -> Iterator[Entry]:
    """Everything below a folder, sorted, each folder before what is in it.

    Left out are `__pycache__`, dangling links, links back to a folder that they stand in, what is neither a file nor
    a folder (pipes, sockets), and sub-folders that may not be read (such as a volume's `lost+found`).

    Raises:
        OSError: the root itself cannot be read.
    """
    return _below(Entry(PurePath(), root, root.stat()), list(root.iterdir()), ())


def _below(folder: Entry, paths: list[Path], above: tuple[os.stat_result, ...]) -> Iterator[Entry]:
    above = (*above, folder.status)
    for path in sorted(paths):
        try:
            entry = Entry(folder.relative / path.name, path, path.stat())
            within = list(path.iterdir()) if entry.is_folder else []
        except OSError:  # it leads nowhere, round and round, or is not for us to read
            continue
        if stat.S_ISREG(entry.status.st_mode):
            yield entry
        elif entry.is_folder and path.name != _CACHE and not any(os.path.samestat(entry.status, one) for one in above):
            yield entry
            yield from _below(entry, within, above)
