"""Copies a model with another config.pbtxt, as a folder to deploy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from tuner.config.deploy import is_byproduct
from tuner.config.folders import walk
from tuner.config.repository import ModelFolder
from tuner.core.atomic_file import sync_folder, write_atomically

# From linux/fs.h: the copy shares blocks with its source until either changes. XFS and Btrfs support it.
_FICLONE = 0x40049409


def copy_model(model: ModelFolder, to: Path, files: Mapping[str, str]) -> None:
    """Copy a model with another config, and perhaps other files, atomically.

    Links are followed, so that the copy is independent of the repository. If the file system supports it (FICLONE),
    copies share blocks with the originals. Omitted are `__pycache__`, backups of replaced files, and files that
    `tuner.config.folders.walk` ignores.

    Args:
        model: The user's model, which is only read.
        to: The folder to create.
        files: The texts of its new files, by path in its folder.

    Raises:
        OSError: the folder exists, or cannot be created; nothing is left behind.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    made = to.with_name(f".{to.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, made, ignore_errors=True)
        made.mkdir()
        shutil.copymode(model.path, made)
        for entry in walk(model.path):
            if entry.is_folder:
                (made / entry.relative).mkdir()
            elif str(entry.relative) not in files and not is_byproduct(entry.relative.name):
                _copy_file(entry.path, made / entry.relative)
        for name, text in files.items():
            write_atomically(made / name, text.encode())
        # `rename` would replace an empty folder.
        if os.path.lexists(to):
            raise FileExistsError(errno.EEXIST, "already exists", str(to))
        made.rename(to)
        sync_folder(to.parent)
        undo.pop_all()


def _copy_file(source: Path, copy: Path) -> None:
    with source.open("rb") as old, copy.open("xb") as new:
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError:  # another file system, or one without FICLONE
            shutil.copyfileobj(old, new, 2**20)
    shutil.copymode(source, copy)
