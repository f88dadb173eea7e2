"""The cache of files on a host, by their content: shared by all runs of its user, and bounded in size.

    files/ab/abcd...     a file, by the key of its manifest entry; read-only
    partial/KEY-SIZE     a file that is being received, locked by its receiver; the next receiver continues it
    trees/MARK/          the files of one run by their names: hard links; the mark names the run's process
    verified.json        when files were last compared with their hashes
    lock                 held while one of the above is changed; holds the size of `files` in bytes

A file in a tree has more than one link, so a file with one link is in use by nobody and may be removed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.cluster.files.manifest import REMEMBERED_BYTES, FileEntry, HashMemory, sha256_of
from tuner.core.atomic_file import remove_unfinished, sync_folder
from tuner.core.errors import JobError, TuningError
from tuner.core.mark import Mark
from tuner.core.quantities import format_size, parse_size

FOLDER_VARIABLE = "TRITONTUNE_CACHE"
"""The environment variable that names the folder of the cache."""

SIZE_VARIABLE = "TRITONTUNE_CACHE_SIZE"
"""The environment variable that limits the cache's size."""

SHARE_OF_DISK = 0.5
"""The cache uses at most this share of its disk by default."""

VERIFIED_FOR_S = 24 * 3600.0
"""A cached file is compared with its hash when it has changed, and when this much time has passed, in s."""

_LOCK_DEADLINE_S = 60.0
_BLOCK = 1 << 20
# All cached files have this modification time, in ns, so any write to one shows.
_MODIFIED_NS = 10**18
_FULL = (errno.ENOSPC, errno.EDQUOT)
# The file system has no hard links, or no more for this file.
_NO_LINKS = (errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.ENOSYS)


@dataclass
class Partial:
    """A file that is being received; its lock is held until it is closed.

    Attributes:
        file: The file's entry in the manifest.
        path: The partial file.
        descriptor: The open file.
        offset: How much of it is here, in bytes.
    """

    file: FileEntry
    path: Path
    descriptor: int
    offset: int = 0

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        while block := os.pread(self.descriptor, _BLOCK, self.offset):  # what an earlier receiver left
            self._count(block)

    @property
    def is_complete(self) -> bool:
        """Whether all of the file is here."""
        return self.offset == self.file.size

    @property
    def is_right(self) -> bool:
        """Whether the content has the hash of the manifest."""
        return self._digest.hexdigest() == self.file.sha256

    def append(self, chunk: bytes) -> None:
        """Add the next chunk.

        Raises:
            OSError: it cannot be written.
        """
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self.descriptor, view, self.offset)
            self._count(view[:written])
            view = view[written:]

    def restart(self) -> None:
        """Forget what is here."""
        os.ftruncate(self.descriptor, 0)
        self.offset = 0
        self._digest = hashlib.sha256()

    def close(self) -> None:
        """Release the lock; what is here stays for the next receiver."""
        os.close(self.descriptor)

    def _count(self, block: bytes | memoryview) -> None:
        self._digest.update(block)
        self.offset += len(block)


class FileCache:
    """The files of a host.

    Args:
        folder: The cache's folder, created if it does not exist.
        limit: The most bytes that it may hold; None: half of its disk.
        host: The name of the host, for messages.
        now: The clock, in s since the epoch.
    """

    def __init__(
        self, folder: Path, *, limit: int | None = None, host: str = "", now: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self._limit = limit
        self._host = host or socket.gethostname()
        self._now = now
        self._files, self._partial, self._trees = folder / "files", folder / "partial", folder / "trees"
        with self.disk_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for each in (self._files, self._partial, self._trees):
                each.mkdir(exist_ok=True)
        self._verified = HashMemory(folder / "verified.json", VERIFIED_FOR_S, now)

    @classmethod
    def of_this_user(cls, host: str = "") -> FileCache:
        """The cache in the folder that the environment names, else in the user's cache folder.

        Raises:
            JobError: a variable of the environment is wrong.
            TuningError: the folder cannot be created.
        """
        size = os.environ.get(SIZE_VARIABLE)
        try:
            limit = parse_size(size) if size else None
        except ValueError as error:
            raise JobError(f"host {host or socket.gethostname()}: {SIZE_VARIABLE}: {error}") from None
        return cls(cache_folder(), limit=limit, host=host)

    @property
    def size(self) -> int:
        """The bytes of all files, and of those that are being received once they are complete."""
        return sum(status.st_size for _, status in self._cached()) + sum(size for _, size, _ in self._promised())

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Convert errors of the file system.

        Raises:
            TuningError: the disk is full, or the folder cannot be used; the message names the host.
        """
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                raise self._full(0) from error
            raise TuningError(
                f"host {self._host}: {error.filename or self.folder}: cannot be used: {error.strerror}; "
                f"{FOLDER_VARIABLE} names another folder for the cache"
            ) from error

    def new_tree(self) -> Path:
        """An empty folder for the files of this process."""
        with self.disk_errors(), self._locked():
            tree = self._trees / str(Mark.new())
            tree.mkdir()
        return tree

    def remove_tree(self, tree: Path) -> None:
        """Remove the folder of a run; the files stay in the cache."""
        shutil.rmtree(tree, ignore_errors=True)

    def remove_abandoned(self, kept: Collection[str] = ()) -> None:
        """Remove the trees of processes that have ended, and partial files that nobody receives.

        Args:
            kept: Keys of partial files to keep, as they will be received now.
        """
        with self.disk_errors():
            for tree in list(self._trees.iterdir()):
                if (mark := Mark.of(tree.name)) and mark.abandoned:
                    self.remove_tree(tree)
            with self._locked() as size:
                size.set(sum(status.st_size for _, status in self._cached()))  # a killed process may not have counted
                for path, _, _ in self._promised():
                    if _key_of(path) not in kept and (descriptor := _locked_file(path)) is not None:
                        path.unlink()
                        os.close(descriptor)
            remove_unfinished(self.folder / "verified.json")

    def link(self, file: FileEntry, to: Path) -> bool:
        """Link a cached file into a tree, and check it; a damaged one is removed from the cache.

        Args:
            file: The file's entry in the manifest.
            to: Its path in a tree.

        Returns:
            Whether the file is there now.

        Raises:
            TuningError: the file system of the cache does not work.
        """
        cached = self._path_of(file)
        with self.disk_errors():
            try:
                with self._locked():
                    _link(cached, to)
                    os.utime(cached, ns=(int(self._now() * 1e9), cached.stat().st_mtime_ns))  # the last use
            except FileNotFoundError:
                return False
            if self._is_right(file, cached, to):
                return True
            with self._locked() as size:
                to.unlink()
                with suppress(FileNotFoundError):
                    status = cached.stat()
                    cached.unlink()
                    size.add(-status.st_size)
        return False

    def receive(self, file: FileEntry) -> Partial | None:
        """Begin, or continue, to receive a file; None: another process receives it.

        Raises:
            TuningError: the disk or the cache has no room for the file.
        """
        path = self._partial / f"{file.key}-{file.size}"
        with self.disk_errors(), self._locked() as size:
            descriptor = _locked_file(path, create=True)
            if descriptor is None:
                return None
            try:
                if os.fstat(descriptor).st_size > file.size:
                    os.ftruncate(descriptor, 0)
                self._make_room(size)
            except BaseException:
                path.unlink()
                os.close(descriptor)
                raise
        with self.disk_errors():
            return Partial(file, path, descriptor)

    def append(self, partial: Partial, chunk: bytes) -> None:
        """Add a chunk to a partial file.

        Raises:
            TuningError: the disk is full; the partial file is removed.
        """
        try:
            with self.disk_errors():
                partial.append(chunk)
        except TuningError:
            self.discard(partial)
            raise

    def keep(self, partial: Partial, to: Path) -> None:
        """Make a complete, right file one of the cache, and link it into a tree.

        Raises:
            TuningError: the file system of the cache does not work.
        """
        file = partial.file
        with self.disk_errors():
            os.fchmod(partial.descriptor, 0o555 if file.executable else 0o444)
            os.utime(partial.descriptor, ns=(int(self._now() * 1e9), _MODIFIED_NS))
            is_big = file.size >= REMEMBERED_BYTES
            if is_big:  # smaller files are compared with their hashes whenever they are used
                os.fsync(partial.descriptor)
            cached = self._path_of(file)
            with self._locked() as size:
                cached.parent.mkdir(exist_ok=True)
                with suppress(FileNotFoundError):
                    size.add(-cached.stat().st_size)
                partial.path.rename(cached)
                size.add(file.size)
                _link(cached, to)
            if is_big:
                sync_folder(cached.parent)
            self._verified.remember(cached, cached.stat(), file.sha256)
        partial.close()

    def discard(self, partial: Partial) -> None:
        """Remove a partial file, and release its lock."""
        with suppress(OSError):
            partial.path.unlink()
        partial.close()

    def save(self) -> None:
        """Remember which files were checked."""
        self._verified.save()

    def _path_of(self, file: FileEntry) -> Path:
        return self._files / file.key[:2] / file.key

    def _is_right(self, file: FileEntry, cached: Path, link: Path) -> bool:
        """Whether a linked file has the content of its name."""
        status = link.stat()
        if status.st_size != file.size:
            return False
        if status.st_mtime_ns != _MODIFIED_NS:  # written to, or copied for want of hard links
            return sha256_of(link) == file.sha256
        return self._verified.hash_of(cached, status) == file.sha256

    def _make_room(self, size: _Size) -> None:
        """Remove unused files, the least recently used first, until what is promised has room.

        Raises:
            TuningError: all unused files together are not enough.
        """
        promised = list(self._promised())
        disk = os.statvfs(self.folder)
        limit = int(SHARE_OF_DISK * disk.f_frsize * disk.f_blocks) if self._limit is None else self._limit
        over_limit = size.value + sum(whole for _, whole, _ in promised) - limit
        lacking = sum(whole - here for _, whole, here in promised) - disk.f_frsize * disk.f_bavail
        if max(over_limit, lacking) <= 0:
            return
        unused = [(path, status) for path, status in self._cached() if status.st_nlink == 1]
        for path, status in sorted(unused, key=lambda one: one[1].st_atime_ns):
            path.unlink()
            size.add(-status.st_size)
            over_limit -= status.st_size
            lacking -= status.st_size
            if max(over_limit, lacking) <= 0:
                return
        if lacking > 0:
            raise self._full(lacking)
        raise TuningError(
            f"host {self._host}: {self.folder}: the files of running jobs are {format_size(over_limit)} larger "
            f"than the cache may be ({format_size(limit)}); set {SIZE_VARIABLE} there"
        )

    def _full(self, lacking: float) -> TuningError:
        more = f"; {format_size(lacking)} more are needed" if lacking else ""
        return TuningError(
            f"host {self._host}: {self.folder}: the disk is full{more}: free some space there, or set "
            f"{FOLDER_VARIABLE} to a folder of another disk"
        )

    def _cached(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._files.glob("??/*"):
            with suppress(FileNotFoundError):
                yield path, path.stat()

    def _promised(self) -> Iterator[tuple[Path, int, int]]:
        """The partial files, each with its size once complete, and its size now."""
        for path in list(self._partial.iterdir()):
            size = path.name.rpartition("-")[2]
            with suppress(FileNotFoundError):
                yield path, int(size) if size.isdecimal() else 0, path.stat().st_size

    @contextmanager
    def _locked(self) -> Iterator[_Size]:
        """Hold the lock of the cache, for moments.

        Raises:
            TuningError: another process holds it for long.
        """
        deadline = time.monotonic() + _LOCK_DEADLINE_S
        while (descriptor := _locked_file(self.folder / "lock", create=True)) is None:
            if time.monotonic() > deadline:
                raise TuningError(
                    f"host {self._host}: {self.folder / 'lock'}: held by another process for {_LOCK_DEADLINE_S:.0f} s"
                )
            time.sleep(0.005)
        try:
            yield _Size(descriptor)
        finally:
            os.close(descriptor)


class _Size:
    """The size of all cached files, kept in the lock file, whose lock is held."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def value(self) -> int:
        """The size in bytes."""
        text = os.pread(self._descriptor, 20, 0)
        return int(text) if text.isdigit() else 0

    def set(self, value: int) -> None:
        """Write another size."""
        os.pwrite(self._descriptor, b"%020d" % max(value, 0), 0)

    def add(self, change: int) -> None:
        """Write a size that differs by some bytes."""
        self.set(self.value + change)


def cache_folder() -> Path:
    """The folder for what this user's runs keep on this host; it need not exist."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser().absolute()
    users = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification, a relative path there is ignored.
    return (Path(users) if Path(users).is_absolute() else Path.home() / ".cache") / "tritontune"


def _key_of(partial: Path) -> str:
    return partial.name.partition("-")[0]


def _locked_file(path: Path, *, create: bool = False) -> int | None:
    """A descriptor that holds the lock of a file; None: another one holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _link(cached: Path, to: Path) -> None:
    """Link a file, or copy it where that is impossible."""
    try:
        os.link(cached, to)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(cached, to)
        to.chmod(cached.stat().st_mode & 0o777)
