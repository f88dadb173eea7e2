"""The actor of a host: it says what the host has, and receives the files of the run. Slots of the host share it."""

from __future__ import annotations

import pickle
from contextlib import ExitStack
from pathlib import Path

from tuner.cluster.files.cache import FileCache
from tuner.cluster.files.in_place import first_difference
from tuner.cluster.files.manifest import FileEntry, Manifest
from tuner.cluster.files.transfer import HostTree, host_memory
from tuner.cluster.ray.host_environment import environment_of_raylet
from tuner.cluster.ray.parts import whole
from tuner.cluster.slots import Parts
from tuner.servers.work_folder import work_folder


class HostActor:
    """Lives as long as the run uses its host.

    Args:
        host: The name of the host.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._tree: HostTree | None = None
        self._open = ExitStack()

    def parts(self, *job: bytes) -> bytes:
        """The pickled parts of this machine for a job."""
        return pickle.dumps(Parts.here(whole(job), environment_of_raylet()))

    def difference(self, manifest: Manifest, path: Path) -> str:
        """How the repository at a path of this host differs from the run's; empty: it does not.

        Raises:
            RepositoryError: a file changes at the moment.
        """
        return first_difference(manifest, path, host_memory())

    def tree(self, manifest: Manifest) -> Path:
        """Begin to receive a repository. Returns its path.

        Raises:
            TuningError: the cache of this host cannot be used.
        """
        if self._tree is None:
            self._tree = HostTree(FileCache.of_this_user(self._host), manifest)
        return self._tree.repository

    def missing(self) -> tuple[FileEntry, ...]:
        """See `Inbox`."""
        return self._received.missing()

    def begin(self, file: FileEntry) -> int | None:
        """See `Inbox`."""
        return self._received.begin(file)

    def receive(self, file: FileEntry, offset: int, chunk: bytes) -> int:
        """See `Inbox`."""
        return self._received.receive(file, offset, chunk)

    def input_data(self, contents: bytes) -> Path:
        """Keep the input data of requests until `close`. Returns their path."""
        path = self._open.enter_context(work_folder()) / "input_data.json"
        path.write_bytes(contents)
        return path

    def close(self) -> None:
        """Remove the run's tree of links, and the input data; the files of the repository stay in the cache."""
        self._open.close()
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    @property
    def _received(self) -> HostTree:
        if self._tree is None:
            raise RuntimeError("no tree was begun")
        return self._tree
