"""The folders of this machine that a container must see to serve a staged repository."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from docker.types import Mount

# Triton's Python backend passes the path of a model through a shell, unquoted.
_PLAIN_REPOSITORY = Path("/tritontune/repository")


@dataclass(frozen=True)
class Bind:
    """A file or folder that a container sees.

    Attributes:
        source: Its path on this machine.
        target: Its path in the container.
        writable: Whether the container may write there.
    """

    source: Path
    target: Path
    writable: bool = False

    def mount(self) -> Mount:
        """The mount for docker-py."""
        return Mount(str(self.target), str(self.source), type="bind", read_only=not self.writable)

    def __str__(self) -> str:
        """The mount as a value of `docker run --mount`."""
        return f"type=bind,source={self.source},target={self.target}" + ("" if self.writable else ",readonly")


def binds_of(repository: Path) -> tuple[Bind, ...]:
    """The staged repository, writable, and the fewest read-only folders that hold the targets of its links.

    The links are absolute and resolved (see `tuner.config.staging.stage`), so the container must see those folders at
    their own paths. It also sees the repository at its own path, so that paths in the log are valid here; but not if
    that path needs quoting.
    """
    repository = repository.absolute()
    plain = shlex.quote(str(repository)) == str(repository)
    target = repository if plain else _PLAIN_REPOSITORY
    folders = _outermost(_folder_of(file) for file in linked_files(repository))
    return (Bind(repository, target, writable=True), *(Bind(folder, folder) for folder in folders))


def linked_files(repository: Path) -> Iterator[Path]:
    """The resolved targets of the links in a staged repository, possibly with duplicates."""
    for folder, _, names in os.walk(repository):
        for name in names:
            path = Path(folder, name)
            # The server reports dangling links.
            if path.is_symlink() and path.exists():
                yield path.resolve()


def _folder_of(file: Path) -> Path:
    """The path to mount for a file: its folder, or the file itself if the image has that folder, such as `/opt`."""
    return file.parent if len(file.parts) > len(("/", "folder", "file")) else file


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths that lie within no other path."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not (kept and path.is_relative_to(kept[-1])):
            kept.append(path)
    return kept
