"""Atomic writes, for all files that others may read at any time."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from tuner.core.lease import Lease, own_lease

# Letters of a file's name in the name of its temporary file; names have at most 255 bytes.
_MOST_LETTERS = 40


def write_atomically(path: Path, content: str | bytes) -> None:
    r"""Write a file in one step, so that neither a reader, a kill nor a power failure leaves half of it.

    Missing folders are created. A symbolic link is followed, and its target replaced. The replaced file's mode is kept,
    and its owner if possible. A path that is not a regular file, such as `/dev/stdout`, is written to directly.

    Args:
        path: The file.
        content: Text or bytes. Lone surrogates in a text, as in file names that are not UTF-8, are written as Python's
            escapes, such as `\udcff`.

    Raises:
        OSError: the file cannot be written, for example because it is read-only; it is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()
    replace_atomically(target, _bytes(content), status_of(target))


def status_of(path: Path) -> os.stat_result | None:
    """The status of a file that is to be replaced; None: the file does not exist.

    Raises:
        OSError: the file is not writable. (Replacing it would not need that permission.)
    """
    try:
        with path.open("r+b", buffering=0) as file:
            return os.fstat(file.fileno())
    except FileNotFoundError:
        return None


def replace_atomically(target: Path, content: bytes, before: os.stat_result | None) -> None:
    """Replace a file atomically.

    Args:
        target: Its path, with links resolved.
        content: The new content.
        before: The result of `status_of`, for the mode and the owner; None: the mode and owner of a new file.

    Raises:
        OSError: the file cannot be written; it is unchanged.
    """
    if target.exists() and not target.is_file():
        target.write_bytes(content)
        return
    unfinished = write_beside(target, content, before)
    try:
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def write_beside(target: Path, content: bytes, before: os.stat_result | None) -> Path:
    """Write the content that is to replace a file into a temporary file beside it. Returns the temporary file.

    Args:
        target: See `replace_atomically`.
        content: The new content.
        before: See `replace_atomically`.

    Raises:
        OSError: the file cannot be written; none is left behind.
    """
    # A unique name, as two writers may write the same file at the same time.
    unfinished = target.with_name(f"{_beginning(target)}new-{token_hex(4)}-{own_lease()}")
    try:
        with unfinished.open("xb") as file:
            if before:
                with suppress(PermissionError):  # only root can change the owner of a file
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    return unfinished


def sync_folder(folder: Path) -> None:
    """Make a folder's entries survive a power failure (fsync), if its file system supports that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(path: Path) -> int:
    """Remove the temporary files of killed writers beside a file. Returns their number."""
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
    """The lease in the last four parts of a temporary file's name; None: there is none."""
    return Lease.parse("-".join(name.split("-")[-4:]))


def _bytes(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
