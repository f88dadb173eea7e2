"""Transfers a staged repository into a container: mounted if the engine sees our files, else copied."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from docker import DockerClient
from docker.models.containers import Container

from tuner.core.errors import TuningError
from tuner.core.mark import Mark
from tuner.servers.docker.binds import Bind, binds_of, linked_files
from tuner.servers.docker.engine import engine_trouble
from tuner.servers.docker.engine_location import EngineLocation
from tuner.servers.docker.file_visibility import engine_sees
from tuner.servers.docker.files_volume import ModelFiles
from tuner.servers.docker.identity import ContainerUser
from tuner.servers.docker.leftovers import labels_of
from tuner.servers.docker.tar import TarMember, tar
from tuner.servers.docker.volume import Volume

_COPY = PurePosixPath("/tritontune/run")
_NAME = "repository"
_NUMBERS = re.compile(r"(\d+)(?::(\d+))?", re.ASCII)


@dataclass(frozen=True)
class FileTransfer:
    """The transfer of one staged repository into a container.

    Attributes:
        source: The local path of the staged repository.
        target: Its path in the container.
        mounts: The mounts of the container.
        copied: Whether the repository must be copied into the container before it starts.
    """

    source: Path
    target: PurePosixPath
    mounts: tuple[Bind | Volume, ...]
    copied: bool

    def also_with(self, folder: Path) -> FileTransfer:
        """This transfer with a writable folder at its own path. Without mounts, each container has its own folder."""
        return self if self.copied else replace(self, mounts=(*self.mounts, Bind(folder, folder, writable=True)))

    def fill(self, container: Container, identity: ContainerUser) -> None:
        """Copy the repository, if necessary, into a container that was created but not started.

        Every user may read and write the copy. Only this container sees it, and it is removed with the container.

        Raises:
            TuningError: a file of the repository cannot be read.
            DockerException, RequestException: the engine fails.
        """
        if self.copied:
            uid, gid = _numbers(identity.user)
            container.put_archive(str(self.target.parent), tar(_entries(self.source), uid=uid, gid=gid))

    def here(self, path: Path) -> Path:
        """The local path for a path in the container; paths outside of the repository stay."""
        return self.source / path.relative_to(self.target) if path.is_relative_to(self.target) else path


class TransferPlanner:
    """Decides between mounting and copying, and keeps copied files for the next container.

    Args:
        image: Any image that the engine has.
        always_copy: Copy without asking the engine whether it sees our files.
    """

    def __init__(self, image: str, *, always_copy: bool = False) -> None:
        self._image = image
        self._always_copy = always_copy
        self._seen: dict[Path, bool] = {}
        self._files = ModelFiles(image)

    def plan(self, client: DockerClient, location: EngineLocation, repository: Path, mark: Mark) -> FileTransfer:
        """Plan the transfer of a repository into the container of a server.

        Raises:
            TuningError: the engine fails, or a file cannot be read.
        """
        repository = repository.absolute()
        with engine_trouble():
            if self._sees(client, location, repository, mark):
                binds = binds_of(repository)
                return FileTransfer(repository, PurePosixPath(binds[0].target), binds, copied=False)
            own = Volume(str(mark), _COPY, labels_of(mark, location), writable=True)
            files = self._files.bring(client, location, linked_files(repository))
            return FileTransfer(repository, _COPY / _NAME, (own, files), copied=True)

    def close(self) -> None:
        """Remove the files kept for the next container; they are copied again when needed."""
        self._files.close()

    def _sees(self, client: DockerClient, location: EngineLocation, repository: Path, mark: Mark) -> bool:
        if self._always_copy:
            return False
        if repository not in self._seen:
            name = f"{mark}-look"
            self._seen[repository] = engine_sees(
                client, self._image, binds_of(repository), name=name, labels=labels_of(mark, location)
            )
        return self._seen[repository]


def _entries(repository: Path) -> Iterator[TarMember]:
    yield TarMember(_NAME, 0o777)
    for folder, folders, names in os.walk(repository):
        place = PurePosixPath(_NAME, *Path(folder).relative_to(repository).parts)
        for name in sorted([*folders, *names]):
            path = Path(folder, name)
            if path.is_symlink():
                # The server reports dangling links.
                leads_to = ModelFiles.place_of(path.resolve()) if path.exists() else path.readlink()
                yield TarMember(str(place / name), 0o777, link=str(leads_to))
            elif path.is_dir():
                yield TarMember(str(place / name), 0o777)
            elif path.is_file():
                yield TarMember(str(place / name), _mode(path), content=path)


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode & 0o111 | 0o666
    except OSError as error:
        raise TuningError(f"{file}: cannot be copied into the container: {error.strerror}") from error


def _numbers(user: str | None) -> tuple[int, int]:
    """User id and group id; 0 for a name, which only the image can resolve."""
    match = _NUMBERS.fullmatch(user or "")
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)
