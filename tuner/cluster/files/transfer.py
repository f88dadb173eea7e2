"""Sends the files of a repository to a host, in chunks and by any connection; each file once.

The machine of the user has a `Source`, the host a `HostTree`. What lies between them implements `Inbox`: `send` needs
nothing else.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from typing_extensions import Self

from tuner.cluster.files.cache import FileCache, Partial, cache_folder
from tuner.cluster.files.manifest import FileEntry, HashMemory, Manifest, Original, list_repository
from tuner.config.repository import ModelRepository
from tuner.core.errors import RepositoryError, TuningError
from tuner.core.quantities import format_duration, format_size

CHUNK = 32 << 20
"""Files are sent in chunks of this size, in bytes. Each side holds one chunk of a transfer in memory."""

_THREADS = 4
# Files up to this size, in bytes, are sent at once, and several at a time, as each call takes a while.
_SMALL = 1 << 20
_POLL_S = 0.2
_MOST_WAIT_S = 3600.0
_PROGRESS_S = 30.0


class Inbox(Protocol):
    """The receiving side of a transfer, as the sender sees it. Every method may be called again after a lost call."""

    def missing(self) -> tuple[FileEntry, ...]:
        """The files that the host lacks, each content once."""

    def begin(self, file: FileEntry) -> int | None:
        """Begin to receive a file.

        Returns:
            How many of its bytes are there; its size: it is complete; None: another run sends it at the moment.
        """

    def receive(self, file: FileEntry, offset: int, chunk: bytes) -> int:
        """Take a chunk of a file that was begun, or the first one of any file.

        Args:
            file: The file.
            offset: The position of the chunk in the file; one that was not expected is ignored.
            chunk: The bytes.

        Returns:
            The position of the next chunk; the file's size: it is complete; 0: its content differs from its hash, so
            it has to be sent again, or another run sends it at the moment.
        """


class Source:
    """A repository to send.

    Attributes:
        manifest: Its manifest.
    """

    def __init__(self, manifest: Manifest, originals: dict[str, Original]) -> None:
        self.manifest = manifest
        self._originals = originals

    @classmethod
    def of(cls, repository: ModelRepository, note: Callable[[str], None]) -> Source:
        """Hash the files of a repository; hashes of big files are remembered for the next run.

        Args:
            repository: The repository.
            note: Told what beside the repository is not sent.

        Raises:
            RepositoryError: a file cannot be read, changed while it was read, or has a name that cannot be sent.
        """
        listing = list_repository(repository, host_memory(), note)
        return cls(listing.manifest, dict(listing.originals))

    def read(self, file: FileEntry, offset: int, size: int = CHUNK) -> bytes:
        """A chunk of a file.

        Raises:
            RepositoryError: the file cannot be read, or has changed since it was hashed.
        """
        original = self._originals[file.key]
        try:
            with original.path.open("rb", buffering=0) as opened:
                chunk = os.pread(opened.fileno(), size, offset)
        except OSError as error:
            raise RepositoryError(f"{original.path}: cannot be read: {error.strerror}") from error
        if original.changed:
            raise changed_error(str(original.path))
        return chunk


def host_memory() -> HashMemory:
    """The hashes of repositories that earlier runs of this user computed on this host."""
    return HashMemory(cache_folder() / "hashes.json")


def changed_error(path: str) -> RepositoryError:
    """The error for a file that changed while it was sent."""
    return RepositoryError(f"{path}: changed while it was sent; start again when nothing writes to the repository")


def send(
    source: Source, inbox: Inbox, host: str, note: Callable[[str], None], *, most_wait_s: float = _MOST_WAIT_S
) -> None:
    """Send what a host lacks. After a lost connection, call it again: it continues where it stopped.

    Args:
        source: What to send.
        inbox: The host's side.
        host: The name of the host, for messages.
        note: Told what is sent, and how far it is.
        most_wait_s: How long to wait for another run that sends the same file to this host, in s.

    Raises:
        RepositoryError: a file changed, or cannot be read.
        TuningError: the host has no room, or another run takes too long to send a file.
    """
    waiting = deque(inbox.missing())
    if not waiting:
        return
    total = sum(file.size for file in waiting)
    note(f"sending {len(waiting)} file{'s' * (len(waiting) != 1)}, {format_size(total)}, to {host}")
    progress = _Progress(total, host, note)
    waiting = deque(_send_small(source, inbox, waiting, progress))
    deadline = time.monotonic() + most_wait_s
    in_vain = 0
    while waiting:
        file = waiting.popleft()
        offset = inbox.begin(file)
        if offset is not None:
            _send_file(source, inbox, file, offset, progress)
            in_vain, deadline = 0, time.monotonic() + most_wait_s
            continue
        waiting.append(file)
        in_vain += 1
        if time.monotonic() > deadline:
            waited = format_duration(most_wait_s)
            raise TuningError(f"host {host}: another run has been sending {file.path} there for {waited}")
        if in_vain >= len(waiting):
            time.sleep(_POLL_S)
            in_vain = 0


def _send_small(source: Source, inbox: Inbox, files: Iterable[FileEntry], progress: _Progress) -> Iterable[FileEntry]:
    """Send the small files among some. Returns the others, and those that another run sends at the moment."""

    def is_sent(file: FileEntry) -> bool:
        if file.size > _SMALL:
            return False
        chunk = source.read(file, 0)
        offset = inbox.receive(file, 0, chunk)
        progress.add(len(chunk))
        return offset == file.size

    files = list(files)
    with ThreadPoolExecutor(_THREADS) as threads:
        sent = list(threads.map(is_sent, files))
    return [file for file, is_done in zip(files, sent, strict=True) if not is_done]


def _send_file(source: Source, inbox: Inbox, file: FileEntry, offset: int, progress: _Progress) -> None:
    was_wrong = False
    while offset < file.size:
        chunk = source.read(file, offset)
        last = offset + len(chunk) >= file.size
        if not chunk:
            raise changed_error(file.path)
        offset = inbox.receive(file, offset, chunk)
        progress.add(len(chunk))
        if last and offset == 0:
            if was_wrong:
                raise changed_error(file.path)
            was_wrong = True


class _Progress:
    def __init__(self, total: int, host: str, note: Callable[[str], None]) -> None:
        self._total = total
        self._host = host
        self._note = note
        self._sent = 0
        self._next = time.monotonic() + _PROGRESS_S

    def add(self, size: int) -> None:
        self._sent += size
        if time.monotonic() > self._next:
            self._next = time.monotonic() + _PROGRESS_S
            sent = format_size(min(self._sent, self._total))
            self._note(f"sent {sent} of {format_size(self._total)} to {self._host}")


class HostTree:
    """The files of a run on a host: links to files of the cache, by their names. An `Inbox`, and a context manager.

    Args:
        cache: The cache of the host.
        manifest: The manifest, checked first.

    Raises:
        RepositoryError: the manifest is not valid.
        TuningError: the cache cannot be used.
    """

    def __init__(self, cache: FileCache, manifest: Manifest) -> None:
        manifest.check()
        self._cache = cache
        self._lock = threading.Lock()  # calls may come from several threads
        self._partials: dict[str, Partial] = {}
        self._paths: dict[str, list[Path]] = defaultdict(list)
        self._files = {file.key: file for file in manifest.files}
        cache.remove_abandoned(kept=self._files)
        self._path = cache.new_tree()
        with cache.disk_errors():
            for folder in manifest.folders:
                (self._path / folder).mkdir()
        for file in manifest.files:
            self._paths[file.key].append(self._path / file.path)
        self.repository = self._path / manifest.repository
        """The repository, complete when nothing is missing."""

    def missing(self) -> tuple[FileEntry, ...]:
        """See `Inbox`. Links all files of the cache, and compares them with their hashes.

        Raises:
            TuningError: the cache cannot be used.
        """
        with self._lock, ThreadPoolExecutor(_THREADS) as threads:
            there = list(threads.map(self._link, self._files.values()))
            self._cache.save()
        return tuple(file for file, is_there in zip(self._files.values(), there, strict=True) if not is_there)

    def begin(self, file: FileEntry) -> int | None:
        """See `Inbox`.

        Raises:
            RepositoryError: the file is not in the manifest.
            TuningError: the disk or the cache has no room for the file.
        """
        with self._lock:
            return self._begin(self._known(file))

    def receive(self, file: FileEntry, offset: int, chunk: bytes) -> int:
        """See `Inbox`.

        Raises:
            RepositoryError: the file is not in the manifest, was not begun, or is longer than its size.
            TuningError: the disk is full; the partial file is removed.
        """
        with self._lock:
            mine = self._known(file)
            if mine.key not in self._partials and self._paths[mine.key][0].exists():
                return mine.size
            if mine.key not in self._partials and offset == 0 and self._begin(mine) in {None, mine.size}:
                return mine.size if self._paths[mine.key][0].exists() else 0
            partial = self._partials.get(mine.key)
            if partial is None:
                raise RepositoryError(f"manifest: {mine.path!r}: a chunk came before its file was begun")
            if offset == partial.offset:
                if offset + len(chunk) > mine.size:
                    raise RepositoryError(f"manifest: {mine.path!r}: is longer than {mine.size} bytes")
                try:
                    self._cache.append(partial, chunk)
                except TuningError:
                    del self._partials[mine.key]
                    raise
            return self._finished(partial)

    def close(self) -> None:
        """Remove the tree; the files stay in the cache, also those that are not complete."""
        with self._lock:
            for partial in self._partials.values():
                partial.close()
            self._partials.clear()
            self._cache.save()
            self._cache.remove_tree(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _known(self, file: FileEntry) -> FileEntry:
        try:
            return self._files[file.key]
        except KeyError:
            raise RepositoryError(f"manifest: {file.path!r}: no such file") from None

    def _begin(self, file: FileEntry) -> int | None:
        if file.key in self._partials:
            return self._partials[file.key].offset
        partial = self._cache.receive(file)
        if partial is None:
            return None
        if self._link(file):  # another run has sent it since we looked
            self._cache.discard(partial)
            return file.size
        self._partials[file.key] = partial
        return self._finished(partial)

    def _finished(self, partial: Partial) -> int:
        """The position of the next chunk, after a complete file is kept, or a wrong one begun again."""
        if not partial.is_complete:
            return partial.offset
        if not partial.is_right:
            partial.restart()
            return 0
        file = partial.file
        del self._partials[file.key]
        self._cache.keep(partial, self._paths[file.key][0])
        if not self._link(file):
            raise TuningError(f"{file.path}: the disk does not return what was written to it")
        return file.size

    def _link(self, file: FileEntry) -> bool:
        """Link a cached file to all of its paths; whether that worked."""
        return all(path.exists() or self._cache.link(file, path) for path in self._paths[file.key])
