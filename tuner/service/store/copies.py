"""Copies of targets and schedules as files, from which the database can be made anew."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from tuner.client.resources import Schedule, Target
from tuner.core.atomic_file import write_atomically
from tuner.core.errors import JobError
from tuner.service.documents import in_one_line, parsed

_log = logging.getLogger(__name__)

Named = TypeVar("Named", Target, Schedule)


class Copies(Generic[Named]):
    """A folder with a file `NAME.json` for each resource of one kind.

    Args:
        folder: The folder; it need not exist.
        kind: The type of the resources.
    """

    def __init__(self, folder: Path, kind: type[Named]) -> None:
        self._folder = folder
        self._kind: type[Named] = kind

    def keep(self, item: Named) -> None:
        """Write the copy of one. A failure is logged: the next start writes it again."""
        path = self._path(item.name)
        try:
            write_atomically(path, item.model_dump_json(indent=1) + "\n")
        except OSError as error:
            _log.warning("%s: cannot be written: %s", path, error.strerror)

    def drop(self, name: str) -> None:
        """Remove the copy of one. A failure is logged: the next start removes it again."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s: cannot be removed: %s", path, error.strerror)

    def names(self) -> list[str]:
        """The names of all copies, sorted."""
        return sorted(path.stem for path in self._folder.glob("*.json")) if self._folder.is_dir() else []

    def read(self, name: str) -> Named:
        """A copy.

        Raises:
            JobError: it cannot be read.
        """
        path = self._path(name)
        try:
            item: Named = parsed(self._kind, path.read_bytes())
        except OSError as error:
            raise JobError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise JobError(f"{path}: {in_one_line(error)}") from None
        if item.name != name:
            raise JobError(f"{path}: is the copy of {item.name!r}")
        return item

    def sync(self, items: Iterable[Named]) -> None:
        """Make the copies equal to all resources, after a service was killed before it wrote one."""
        outdated = set(self.names())
        for item in items:
            try:
                same = item.name in outdated and self.read(item.name) == item
            except JobError:
                same = False
            if not same:
                self.keep(item)
            outdated.discard(item.name)
        for name in outdated:
            self.drop(name)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def target_copies(data: Path) -> Copies[Target]:
    """The copies of the targets in a data folder."""
    return Copies(data / "targets", Target)


def schedule_copies(data: Path) -> Copies[Schedule]:
    """The copies of the schedules in a data folder."""
    return Copies(data / "schedules", Schedule)
