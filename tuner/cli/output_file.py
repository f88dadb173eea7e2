"""What every command asks of a file that it is to write: no folder is made for it, and no other file is lost."""

from __future__ import annotations

from pathlib import Path

from tuner.core.errors import JobError


def check_output(file: Path | None, *, option: str, force: bool) -> None:
    """See that a file can be written where an option says, before anything is done.

    What is no file, such as `/dev/stdout`, and a file with nothing in it are written to.

    Args:
        file: The file; None: the option was not given.
        option: Which names it.
        force: Whether a file that is there may be replaced.

    Raises:
        JobError: there is no such folder, or a file that would be lost; or `force` has no use.
    """
    if file is None:
        if force:
            raise JobError(f"--force has no use without a file to replace, which {option} names")
        return
    if file.is_dir():
        raise JobError(f"{option}: {file} is a folder; name a file in it")
    if not file.absolute().parent.is_dir():
        raise JobError(f"{option}: there is no folder {file.parent} to write {file.name} into")
    if not force and file.is_file() and file.stat().st_size:
        raise JobError(f"{option}: {file} is there already; --force replaces it, or name another file")
