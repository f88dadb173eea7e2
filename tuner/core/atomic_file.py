"""Atomic writes: the one way in which files are written that others may read at any time."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from tuner.core.lease import Lease, own_lease

# Of a name, the unfinished one takes so much: a file system takes 255 bytes.
_MOST_LETTERS = 40


def write_atomically(path: Path, content: str | bytes) -> None:
    r"""Write a file in one move, so that a reader, a kill or a power failure never meets half of one.

    Its folder is made. Through a symbolic link, the file that it leads to is replaced. What is replaced keeps its mode,
    and its owner where that can be. What is no file, such as `/dev/stdout`, is written to.

    Args:
        path: The file.
        content: Of a text, what UTF-8 cannot say, such as a file's name in other bytes, is written as Python escapes
            it: `\udcff`.

    Raises:
        OSError: it cannot be written, as when its owner made it read-only. Nothing has changed then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()
    replace_atomically(target, _bytes(content), status_of(target))


def status_of(path: Path) -> os.stat_result | None:
    """Of a file that is to be replaced; None: there is none.

    Raises:
        OSError: it may not be written to, although to replace it needs no such right.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            return os.fstat(file.fileno())
    except FileNotFoundError:
        return None


def replace_atomically(target: Path, content: bytes, before: os.stat_result | None) -> None:
    """Put a file in the place of another.

    Args:
        target: Its path, with links resolved.
        content: What it is to hold.
        before: What `status_of` says of the one whose mode and owner it is to have; None: of any new file.

    Raises:
        OSError: it cannot be written. Nothing has changed then.
    """
    if target.exists() and not target.is_file():
        target.write_bytes(content)
        return
    # A name of its own, as two may write the same file at once.
    unfinished = target.with_name(f"{_beginning(target)}new-{token_hex(4)}-{own_lease()}")
    try:
        with unfinished.open("xb") as file:
            if before:
                with suppress(PermissionError):  # only root can give a file away
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """See that the names in a folder outlive a power failure, where its file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(path: Path) -> int:
    """Remove what killed writers of this file have left beside it. Returns how many files."""
    target = path.resolve()
    beginning = _beginning(target)
    abandoned = [
        file
        for file in target.parent.iterdir()
        if file.name.startswith(beginning) and (lease := _lease_of(file.name)) and lease.abandoned
    ]
    for file in abandoned:
        file.unlink(missing_ok=True)
    return len(abandoned)


def _beginning(target: Path) -> str:
    return f".{target.name[:_MOST_LETTERS]}."


def _lease_of(name: str) -> Lease | None:
    """Of an unfinished file: the last four parts of its name."""
    return Lease.parse("-".join(name.split("-")[-4:]))


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
