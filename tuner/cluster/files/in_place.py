"""Checks a repository that a host already has (`--repository-on-hosts`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuner.cluster.files.manifest import HashMemory, Manifest
from tuner.config.folders import walk


def first_difference(manifest: Manifest, path: Path, memory: HashMemory) -> str:
    """The first file at a path that differs from a manifest, and how; empty: none differs.

    Names and sizes are compared first, then contents. The hash of a big file that an earlier run computed is used if
    the file's size, modification time and inode have not changed.

    Args:
        manifest: The manifest of the user's repository.
        path: The repository on this host; files beside it are looked for there, too.
        memory: Hashes of earlier runs on this host.

    Raises:
        RepositoryError: the manifest is not valid, or a file changes at the moment.
    """
    manifest.check()
    try:
        return next(_differences(manifest, path, memory), "")
    except OSError as error:
        return f"{error.filename or path}: cannot be read: {error.strerror}"
    finally:
        memory.save()


def _differences(manifest: Manifest, path: Path, memory: HashMemory) -> Iterator[str]:
    for folder in manifest.folders:
        if not _at(folder, manifest, path).is_dir():
            yield f"{folder}: no such folder"
    for file in manifest.files:
        place = _at(file.path, manifest, path)
        if not place.is_file():
            yield f"{file.path}: no such file"
        elif (size := place.stat().st_size) != file.size:
            yield f"{file.path}: has {size:,} bytes instead of {file.size:,}"
    known = {*manifest.folders, *(file.path for file in manifest.files)}
    for entry in walk(path):
        if (found := f"{manifest.repository}/{entry.relative}") not in known:
            yield f"{found}: is not in the repository of this run"
    for file in manifest.files:
        place = _at(file.path, manifest, path).resolve()
        if memory.hash_of(place, place.stat()) != file.sha256:
            yield f"{file.path}: has other contents"


def _at(listed: str, manifest: Manifest, path: Path) -> Path:
    """Where a path of the manifest is on this host."""
    root, _, rest = listed.partition("/")
    return (path if root == manifest.repository else path.parent / root) / rest
