"""Makes a folder that can be deployed: a model's own files, and another config.pbtxt."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from pathlib import Path

from tuner.config.deploy import is_beside
from tuner.config.folders import walk
from tuner.config.repository import CONFIG, ModelFolder
from tuner.core.atomic_file import sync_folder, write_atomically

# linux/fs.h: the copy shares the blocks of its source until one of them changes. Some file systems can (XFS, Btrfs).
_FICLONE = 0x40049409


def copy_model(model: ModelFolder, to: Path, config: str) -> None:
    """Copy a model with another config, whole or not at all.

    Links are followed, so that the copy needs nothing but itself, and no later change to the repository changes it;
    where the file system can, the copies of its files take no room of their own. `__pycache__` and what earlier
    exports have left beside the config stay behind, and so does what else `tuner.config.folders.walk` leaves out.

    Args:
        model: The user's; it is only read.
        to: The folder to make.
        config: The text of its config.pbtxt.

    Raises:
        OSError: it is there already, or cannot be made. Nothing is left then.
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
            elif (name := str(entry.relative)) != CONFIG and not is_beside(name, CONFIG):
                _copy_file(entry.path, made / entry.relative)
        write_atomically(made / CONFIG, config.encode())
        # To rename is to take the place of an empty folder, too.
        if os.path.lexists(to):
            raise FileExistsError(errno.EEXIST, "already exists", str(to))
        made.rename(to)
        sync_folder(to.parent)
        undo.pop_all()


def _copy_file(source: Path, copy: Path) -> None:
    with source.open("rb") as old, copy.open("xb") as new:
        try:
            fcntl.ioctl(new, _FICLONE, old.fileno())
        except OSError:  # another file system, or one that has no such thing
            shutil.copyfileobj(old, new, 2**20)
    shutil.copymode(source, copy)
