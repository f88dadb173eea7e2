"""How a staged repository gets into a container: mounted where the engine sees our files, else as a copy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from docker import DockerClient
from docker.models.containers import Container

from tuner.core.errors import TuningError
from tuner.core.mark import Mark
from tuner.servers.docker.binds import Bind, binds_of, linked_files
from tuner.servers.docker.engine import engine_trouble
from tuner.servers.docker.files import ModelFiles
from tuner.servers.docker.identity import Identity
from tuner.servers.docker.leftovers import labels_of
from tuner.servers.docker.sight import engine_sees
from tuner.servers.docker.site import Site
from tuner.servers.docker.tar import Entry, tar
from tuner.servers.docker.volume import Volume

_COPY = PurePosixPath("/tritontune/run")
_NAME = "repository"
_NUMBERS = re.compile(r"(\d+)(?::(\d+))?", re.ASCII)


@dataclass(frozen=True)
class Supply:
    """What a container must be given to serve a staged repository.

    Attributes:
        source: The staged repository, here.
        target: Where the server sees it.
        mounts: What to make the container with.
        copied: Whether the repository must be copied into the container before it starts.
    """

    source: Path
    target: PurePosixPath
    mounts: tuple[Bind | Volume, ...]
    copied: bool

    def fill(self, container: Container, identity: Identity) -> None:
        """Copy what must be copied into a container that was made and not started.

        All may be read and written by whoever the server runs as: nobody else sees the copy, which goes with it.

        Raises:
            TuningError: a file of the repository cannot be read.
            DockerException, RequestException: the engine does not take it.
        """
        if self.copied:
            uid, gid = _numbers(identity.user)
            container.put_archive(str(self.target.parent), tar(_entries(self.source), uid=uid, gid=gid))

    def here(self, path: Path) -> Path:
        """A path of the repository as the server sees it, as we do."""
        return self.source / path.relative_to(self.target) if path.is_relative_to(self.target) else path


class Supplier:
    """Decides how, and keeps what can be used again by the next container.

    Args:
        image: Any image that the engine has.
        always_copy: Do not ask the engine whether it sees our files.
    """

    def __init__(self, image: str, *, always_copy: bool = False) -> None:
        self._image = image
        self._always_copy = always_copy
        self._seen: dict[Path, bool] = {}
        self._files = ModelFiles(image)

    def supply(self, client: DockerClient, site: Site, repository: Path, mark: Mark) -> Supply:
        """What the container of a server needs for this repository.

        Raises:
            TuningError: the engine does not answer as one should, or a file cannot be read.
        """
        repository = repository.absolute()
        with engine_trouble():
            if self._sees(client, site, repository, mark):
                binds = binds_of(repository)
                return Supply(repository, PurePosixPath(binds[0].target), binds, copied=False)
            own = Volume(str(mark), _COPY, labels_of(mark, site), writable=True)
            files = self._files.bring(client, site, linked_files(repository))
            return Supply(repository, _COPY / _NAME, (own, files), copied=True)

    def close(self) -> None:
        """Remove what was kept for the next container; it is made again when it is needed."""
        self._files.close()

    def _sees(self, client: DockerClient, site: Site, repository: Path, mark: Mark) -> bool:
        if self._always_copy:
            return False
        if repository not in self._seen:
            name = f"{mark}-look"
            self._seen[repository] = engine_sees(
                client, self._image, binds_of(repository), name=name, labels=labels_of(mark, site)
            )
        return self._seen[repository]


def _entries(repository: Path) -> Iterator[Entry]:
    yield Entry(_NAME, 0o777)
    for folder, folders, names in os.walk(repository):
        place = PurePosixPath(_NAME, *Path(folder).relative_to(repository).parts)
        for name in sorted([*folders, *names]):
            path = Path(folder, name)
            if path.is_symlink():
                # A link to nowhere is left to the server to complain about.
                leads_to = ModelFiles.place_of(path.resolve()) if path.exists() else path.readlink()
                yield Entry(str(place / name), 0o777, link=str(leads_to))
            elif path.is_dir():
                yield Entry(str(place / name), 0o777)
            elif path.is_file():
                yield Entry(str(place / name), _mode(path), content=path)


def _mode(file: Path) -> int:
    try:
        return file.stat().st_mode & 0o111 | 0o666
    except OSError as error:
        raise TuningError(f"{file}: cannot be copied for the server: {error.strerror}") from error


def _numbers(user: str | None) -> tuple[int, int]:
    """User and group by number; root's where they have names, which only the image knows."""
    match = _NUMBERS.fullmatch(user or "")
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)
