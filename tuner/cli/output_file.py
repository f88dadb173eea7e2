"""The check of output files, for all commands: no folder is made, and no file is overwritten by accident."""

from __future__ import annotations

from pathlib import Path

from tuner.core.errors import JobError


def check_output(file: Path | None, *, option: str, force: bool) -> None:
    """Check that the file of an option can be written; empty files and devices may be there already.

    Args:
        file: The file; None: the option was not given.
        option: Name of the option, for messages.
        force: Whether an existing file may be replaced.

    Raises:
        JobError: its folder is missing, it exists and `force` is false, or `force` is true without a file.
    """
    if file is None:
        if force:
            raise JobError(f"--force needs {option}: there is no file to replace")
        return
    if file.is_dir():
        raise JobError(f"{option}: {file} is a folder, not a file")
    if not file.absolute().parent.is_dir():
        raise JobError(f"{option}: no such folder {file.parent}")
    if not force and file.is_file() and file.stat().st_size:
        raise JobError(f"{option}: {file} exists already; replace it with --force, or choose another file")
