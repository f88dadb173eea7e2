"""Walks a folder as Triton sees it: links are followed, except for circular ones."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

_CACHE = "__pycache__"


@dataclass(frozen=True)
class Entry:
    """A folder or a regular file, found by a walk.

    Attributes:
        relative: Its path relative to the root of the walk.
        path: Its full path, with unresolved links.
        status: `stat` of the file or folder, with links followed.
    """

    relative: PurePath
    path: Path
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder or a link to a folder; else it is a file."""
        return stat.S_ISDIR(self.status.st_mode)


def walk(root: Path) -> Iterator[Entry]:
    """All files and folders below a root, sorted, each folder before its contents.

    `__pycache__`, dangling links, links to a parent folder, pipes, sockets and unreadable sub-folders (such as a
    volume's `lost+found`) are ignored.

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
        except OSError:  # dangling, circular, or not readable
            continue
        if stat.S_ISREG(entry.status.st_mode):
            yield entry
        elif entry.is_folder and path.name != _CACHE and not any(os.path.samestat(entry.status, one) for one in above):
            yield entry
            yield from _below(entry, within, above)
