"""A volume with the files of models. Candidates share these files, so each file is copied once in a run."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath

from docker import DockerClient
from docker.errors import NotFound

from tuner.core.errors import TuningError
from tuner.core.mark import Mark
from tuner.servers.docker.container import remove_container
from tuner.servers.docker.engine import connect
from tuner.servers.docker.engine_location import EngineLocation
from tuner.servers.docker.leftovers import labels_of
from tuner.servers.docker.tar import TarMember, tar
from tuner.servers.docker.volume import Volume, remove_volume

_TARGET = PurePosixPath("/tritontune/files")
_State = tuple[int, int, int]  # inode, size, time of the last change


class ModelFiles:
    """Copies of files in a volume, which is removed with this object, or when the process ends.

    Args:
        image: An image that the engine has: files are copied through a container of it, which is never started.
    """

    def __init__(self, image: str) -> None:
        self._image = image
        self._copied: dict[Path, _State] = {}
        self._volume: Volume | None = None
        self._remove: Callable[[], object] = lambda: None

    def bring(self, client: DockerClient, location: EngineLocation, files: Iterable[Path]) -> Volume:
        """The read-only volume with the current version of these files; only missing or changed ones are copied.

        Raises:
            TuningError: a file cannot be read.
            DockerException, RequestException: the engine refuses the files.
        """
        volume = self._present(client) or self._made(location)
        now = {file: _state(file) for file in sorted(set(files))}
        missing = [file for file, state in now.items() if self._copied.get(file) != state]
        if missing:
            self._copy(client, volume, missing)
            self._copied.update({file: now[file] for file in missing})
        return volume

    @staticmethod
    def place_of(file: Path) -> PurePosixPath:
        """The path in a container of a file, given by its absolute path here."""
        return _TARGET.joinpath(*file.parts[1:])

    def close(self) -> None:
        """Remove the volume; it is made again when it is needed."""
        self._remove()

    def _present(self, client: DockerClient) -> Volume | None:
        """The volume; None if it was removed, as by `docker volume prune` between two launches."""
        if self._volume:
            with suppress(NotFound):
                client.volumes.get(self._volume.name)
                return self._volume
        return None

    def _made(self, location: EngineLocation) -> Volume:
        self.close()
        mark = Mark.new()
        self._copied.clear()
        self._volume = Volume(f"{mark}-files", _TARGET, labels_of(mark, location))
        self._remove = weakref.finalize(self, _remove, os.getpid(), self._volume.name)
        return self._volume

    def _copy(self, client: DockerClient, volume: Volume, files: list[Path]) -> None:
        writable = Volume(volume.name, volume.target, volume.labels, writable=True)
        try:
            container = client.containers.create(
                self._image,
                ["true"],
                name=volume.name,
                labels=dict(volume.labels),
                mounts=[writable.mount()],
            )
            container.put_archive(str(volume.target), tar(_entries(files)))
        finally:
            remove_container(client, volume.name)


def _entries(files: list[Path]) -> Iterator[TarMember]:
    """Folders and files, readable for every user, as only our servers mount the volume."""
    folders = {folder for file in files for folder in file.parents if folder != folder.parent}
    for folder in sorted(folders):
        yield TarMember(_name(folder), 0o755)
    for file in files:
        yield TarMember(_name(file), file.stat().st_mode & 0o777 | 0o444, content=file)


def _name(path: Path) -> str:
    return str(PurePosixPath(*path.parts[1:]))


def _state(file: Path) -> _State:
    try:
        status = file.stat()
    except OSError as error:
        raise TuningError(f"{file}: cannot be copied into the container: {error.strerror}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _remove(owner: int, name: str) -> None:
    if os.getpid() != owner:  # a fork of the owner
        return
    with suppress(TuningError), closing(connect()) as client:  # the next run removes what cannot be removed now
        remove_container(client, name)
        remove_volume(client, name)
