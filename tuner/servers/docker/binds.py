"""Which folders of this machine a container must see to serve a staged repository."""

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
        source: Where it is on this machine.
        target: Where the container sees it.
        writable: Whether the container may write there.
    """

    source: Path
    target: Path
    writable: bool = False

    def mount(self) -> Mount:
        """As docker-py wants it."""
        return Mount(str(self.target), str(self.source), type="bind", read_only=not self.writable)

    def __str__(self) -> str:
        """As `docker run --mount` wants it."""
        return f"type=bind,source={self.source},target={self.target}" + ("" if self.writable else ",readonly")


def binds_of(repository: Path) -> tuple[Bind, ...]:
    """The staged repository itself, writable, and the fewest read-only folders that hold what its links lead to.

    The links are absolute and resolved (see `tuner.config.staging.stage`), so the container sees those folders where
    they are here; and the repository too, as long as its path needs no quoting: what the server then says of paths is
    true on both sides.
    """
    repository = repository.absolute()
    plain = shlex.quote(str(repository)) == str(repository)
    target = repository if plain else _PLAIN_REPOSITORY
    folders = _outermost(_folder_of(file) for file in linked_files(repository))
    return (Bind(repository, target, writable=True), *(Bind(folder, folder) for folder in folders))


def linked_files(repository: Path) -> Iterator[Path]:
    """The files to which the links of a staged repository lead, resolved; some perhaps more than once."""
    for folder, _, names in os.walk(repository):
        for name in names:
            path = Path(folder, name)
            # A link to nowhere is left to the server to complain about.
            if path.is_symlink() and path.exists():
                yield path.resolve()


def _folder_of(file: Path) -> Path:
    """The folder to show for a file. One such as `/opt` would hide what the image has there, so of it only the file."""
    return file.parent if len(file.parts) > len(("/", "folder", "file")) else file


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Leave out each that lies within another."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not (kept and path.is_relative_to(kept[-1])):
            kept.append(path)
    return kept
