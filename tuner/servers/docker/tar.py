"""Writes tar archives piece by piece, so that no file is held in memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tuner.core.errors import TuningError

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class TarMember:
    """An archive member: a file if it has `content`, a symbolic link if it has `link`, else a folder.

    Attributes:
        name: Its relative path in the archive.
        mode: Its permission bits.
        content: The local file with its bytes.
        link: The target of a symbolic link.
    """

    name: str
    mode: int
    content: Path | None = None
    link: str | None = None


def tar(entries: Iterable[TarMember], *, uid: int = 0, gid: int = 0) -> Iterator[bytes]:
    """The archive, in pieces of up to 1 MiB.

    Args:
        entries: The members; folders come before their contents.
        uid: The owner of all members.
        gid: The group of all members.

    Raises:
        TuningError: a file cannot be read, or shrinks while it is copied.
    """
    for entry in entries:
        info = tarfile.TarInfo(entry.name)
        info.mode, info.uid, info.gid = entry.mode, uid, gid
        if entry.link is not None:
            info.type, info.linkname = tarfile.SYMTYPE, entry.link
        elif entry.content is None:
            info.type = tarfile.DIRTYPE
        if entry.content is None:
            yield info.tobuf(tarfile.PAX_FORMAT)
        else:
            yield from _file(info, entry.content)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _file(info: tarfile.TarInfo, path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            status = path.stat()
            info.size, info.mtime = status.st_size, int(status.st_mtime)
            yield info.tobuf(tarfile.PAX_FORMAT)
            left = info.size
            while left:
                piece = file.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise TuningError(f"{path}: shrank while it was copied")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise TuningError(f"{path}: cannot be copied into the container: {error.strerror}") from error
    yield bytes(-info.size % tarfile.BLOCKSIZE)
