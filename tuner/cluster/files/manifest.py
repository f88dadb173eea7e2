"""The manifest of a model repository: the path, content and size of each file that a host needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath

from tuner.config.beside import paths_beside
from tuner.config.folders import Entry, walk
from tuner.config.repository import ModelRepository
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import RepositoryError
from tuner.core.names import why_no_folder

REMEMBERED_BYTES = 1 << 20
"""Smaller files are hashed again in less time than it takes to look them up."""

MOST_BESIDE = 10_000
"""A folder beside the repository with more files than this is not sent."""

_HASH = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20
_THREADS = 4
_MOST_REMEMBERED = 10_000
# A file that was written this recently may change once more within the same tick of its clock.
_SETTLED_NS = 2 * 10**9


@dataclass(frozen=True)
class FileEntry:
    """A file of a manifest.

    Attributes:
        path: Its path, with slashes, relative to the root of the manifest.
        sha256: SHA-256 of its content, in hex.
        size: Its size in bytes.
        mode: Its permissions.
    """

    path: str
    sha256: str
    size: int
    mode: int

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it."""
        return bool(self.mode & 0o100)

    @property
    def key(self) -> str:
        """What a cache knows the file by: its hash, followed by an `x` if it is executable."""
        return self.sha256 + "x" * self.executable


@dataclass(frozen=True)
class Manifest:
    """The files and folders that a host needs to serve a repository.

    The first part of each path is the name of the repository's folder, or of a file or folder beside it that the
    models' code names.

    Attributes:
        repository: The name of the repository's folder.
        folders: The paths of all folders, each after its parent.
        files: The files, sorted by path.
    """

    repository: str
    folders: tuple[str, ...]
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """A SHA-256 in hex over everything in it."""
        parts = [self.repository, *self.folders, *(f"{file.path}\0{file.key}" for file in self.files)]
        return hashlib.sha256(b"".join(hashlib.sha256(os.fsencode(part)).digest() for part in parts)).hexdigest()

    def check(self) -> None:
        """Check a manifest from elsewhere before its paths become paths of this machine.

        Raises:
            RepositoryError: a path leads out of the folder, is listed twice, or lies in no listed folder; or a hash or
                a size is none.
        """
        seen: set[str] = set()
        folders = {""}
        for path in self.folders:
            _check_path(path, seen, folders)
            folders.add(path)
        for file in self.files:
            _check_path(file.path, seen, folders)
            if not _HASH.fullmatch(file.sha256) or file.size < 0:
                raise RepositoryError(
                    f"manifest: {file.path!r}: not a SHA-256 and a size: {file.sha256!r}, {file.size}"
                )
        if self.repository not in folders - {""}:
            raise RepositoryError(f"manifest: no folder {self.repository!r}, which is the repository")


def _check_path(path: str, seen: set[str], folders: set[str]) -> None:
    for part in path.split("/"):
        if reason := why_no_folder(part):
            raise RepositoryError(f"manifest: path {path!r}: {part!r} {reason}")
    if path in seen:
        raise RepositoryError(f"manifest: path {path!r}: is listed twice")
    if path.rpartition("/")[0] not in folders:
        raise RepositoryError(f"manifest: path {path!r}: its folder is not listed before it")
    seen.add(path)


@dataclass(frozen=True)
class Original:
    """A file on this machine whose hash is known.

    Attributes:
        path: Its path.
        stamp: Its size, modification time and inode when it was hashed.
    """

    path: Path
    stamp: tuple[int, int, int]

    @property
    def changed(self) -> bool:
        """Whether it has changed since then, or is gone."""
        try:
            return stamp_of(self.path.stat()) != self.stamp
        except OSError:
            return True


@dataclass
class HashMemory:
    """Remembers the hashes of big files for the next run, by path, size, modification time and inode.

    Several runs may use one file: the last one that saves wins, which only costs others the time to hash again.

    Attributes:
        file: Where the hashes are stored; None: nowhere.
        age_s: Hashes older than this, in s, are computed again; None: they are valid until the file changes.
        now: The clock, in s since the epoch.
    """

    file: Path | None
    age_s: float | None = None
    now: Callable[[], float] = time.time
    _known: dict[str, list[object]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.file is None:
            return
        try:
            known = json.loads(self.file.read_bytes())
        except (OSError, ValueError):
            return  # a memory that is lost costs time only
        if isinstance(known, dict):
            self._known = {path: entry for path, entry in known.items() if isinstance(entry, list) and len(entry) == 5}

    def hash_of(self, path: Path, status: os.stat_result) -> str:
        """The SHA-256 of a file in hex.

        Args:
            path: The file.
            status: Its status.

        Raises:
            OSError: the file cannot be read.
            RepositoryError: the file changed while it was read.
        """
        stamp = stamp_of(status)
        if known := self._remembered(path, stamp):
            return known
        begun = self.now()
        digest = sha256_of(path)
        if stamp_of(path.stat()) != stamp:
            raise RepositoryError(f"{path}: changed while it was read; try again when nothing writes to it")
        if begun * 1e9 - status.st_mtime_ns > _SETTLED_NS:
            self.remember(path, status, digest)
        return digest

    def remember(self, path: Path, status: os.stat_result, digest: str) -> None:
        """Note the hash of a file that was just read or written."""
        if status.st_size >= REMEMBERED_BYTES:
            self._known.pop(_text(path), None)  # the newest are last
            self._known[_text(path)] = [*stamp_of(status), digest, self.now()]

    def save(self) -> None:
        """Store what is known, if it can be stored."""
        newest = list(self._known.items())[-_MOST_REMEMBERED:]
        try:
            if self.file is not None:
                write_atomically(self.file, json.dumps(dict(newest)))
        except OSError:
            return  # a full or read-only disk costs time only

    def _remembered(self, path: Path, stamp: tuple[int, int, int]) -> str | None:
        entry = self._known.get(_text(path))
        if entry is None or tuple(entry[:3]) != stamp or not isinstance(entry[3], str):
            return None
        at = entry[4]
        if self.age_s is not None and not (isinstance(at, float) and 0 <= self.now() - at < self.age_s):
            return None
        return entry[3]


@dataclass(frozen=True)
class Listing:
    """A manifest, and where its files are on this machine.

    Attributes:
        manifest: The manifest.
        originals: By the key of a file, one file with this content.
    """

    manifest: Manifest
    originals: Mapping[str, Original]


def list_repository(repository: ModelRepository, memory: HashMemory, note: Callable[[str], None]) -> Listing:
    """List a repository, and the files beside it that its models' code names.

    The files are those that staging copies: links are followed, and what `tuner.config.folders.walk` ignores is
    omitted.

    Args:
        repository: The repository.
        memory: Hashes of earlier runs.
        note: Told what beside the repository is not listed.

    Raises:
        RepositoryError: a file cannot be read, changed while it was read, or has a name that cannot be sent.
    """
    path = repository.path.absolute()
    name = path.name if path.name not in {"", ".."} else path.resolve().name or "repository"
    try:
        found = [(name, entry) for entry in _with_root(path)]
        for beside in _sent_beside(repository, note):
            found += [(beside.name, entry) for entry in _with_root(beside)]
        files = [(_joined(root, entry), entry) for root, entry in found if not entry.is_folder]
        with ThreadPoolExecutor(_THREADS) as threads:
            hashes = list(threads.map(lambda file: memory.hash_of(file[1].path.resolve(), file[1].status), files))
    except OSError as error:
        raise RepositoryError(f"{error.filename or repository.path}: cannot be read: {error.strerror}") from error
    memory.save()
    entries = [
        FileEntry(relative, digest, entry.status.st_size, entry.status.st_mode & 0o777)
        for (relative, entry), digest in zip(files, hashes, strict=True)
    ]
    manifest = Manifest(
        repository=name,
        folders=tuple(_joined(root, entry) for root, entry in found if entry.is_folder),
        files=tuple(sorted(entries, key=lambda entry: os.fsencode(entry.path))),
    )
    manifest.check()
    originals = {
        entry.key: Original(one.path.resolve(), stamp_of(one.status))
        for entry, (_, one) in zip(entries, files, strict=True)
    }
    return Listing(manifest, originals)


def _with_root(path: Path) -> Iterator[Entry]:
    yield Entry(PurePath(), path, path.stat())
    if path.is_dir():
        yield from walk(path)


def _sent_beside(repository: ModelRepository, note: Callable[[str], None]) -> Iterable[Path]:
    """What beside a repository is sent with it."""
    for path in paths_beside(repository):
        if path.parent == path.parent.parent:
            reason = "the repository lies in the root folder"
        elif path.is_dir() and len(list(islice(walk(path), MOST_BESIDE + 1))) > MOST_BESIDE:
            reason = f"it has over {MOST_BESIDE:,} files"
        else:
            yield path
            continue
        note(f"{path} is not sent to the hosts with the repository, as {reason}; models that need it will fail there")


def _joined(root: str, entry: Entry) -> str:
    return str(PurePath(root) / entry.relative)


def stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """The size, modification time and inode of a file: they differ after all but deliberate changes."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hex.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _text(path: Path) -> str:
    """A path as text that JSON can hold, whatever its bytes."""
    return os.fsencode(path).decode("latin-1")
