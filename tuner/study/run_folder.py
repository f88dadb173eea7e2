"""The layout of a run folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.core.boundary import LOG
from tuner.core.errors import JobError, UsageError
from tuner.core.lock import LOCK, locked
from tuner.core.names import why_no_folder

EVENTS = "events.jsonl"
"""The name of the file of events."""


@dataclass(frozen=True)
class RunFolder:
    """`RUN_DIR/`: the studies of all models, and the files written from them."""

    path: Path

    @classmethod
    def default(cls) -> RunFolder:
        """A new folder below the current one, named by the time."""
        return cls(Path("tritontune-runs") / time.strftime("%Y%m%d-%H%M%S"))

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of an earlier run.

        Raises:
            JobError: the folder does not exist, or is not a run folder.
        """
        folder = cls(path)
        if not path.exists():
            raise JobError(f"{path}: no such folder; give the RUN_DIR of a run")
        if not folder.database.is_file():
            raise JobError(f"{path}: not a run folder (it has no {folder.database.name}); give the RUN_DIR of a run")
        return folder

    @property
    def database(self) -> Path:
        """The studies of all models."""
        return self.path / "study.db"

    @property
    def job(self) -> Path:
        """The stored options of the run."""
        return self.path / "job.yaml"

    @property
    def report(self) -> Path:
        """The report of all models, as one page."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """The log of an unexpected error; it exists only if the run ended by one."""
        return self.path / LOG

    @property
    def events(self) -> Path:
        """The events of the run, one a line."""
        return self.path / EVENTS

    @property
    def work(self) -> Path:
        """Temporary files of the run, such as staged repositories."""
        return self.path / ".work"

    @property
    def own_configs(self) -> Path:
        """The original model configs of a running server; it exists while candidates replace them."""
        return self.path / ".own_configs.json"

    def model(self, name: str) -> Path:
        """The folder of one model.

        Raises:
            JobError: the model's name cannot be used as a folder name.
        """
        reason = "is a file of the run itself" if name in self._own_names else why_no_folder(name)
        if reason:
            raise JobError(f"{self.path}: cannot hold model {name!r}: the name {reason}")
        return self.path / name

    @property
    def _own_names(self) -> set[str]:
        own = (self.database, self.job, self.report, self.log, self.events, self.work, self.own_configs)
        return {*(path.name for path in own), LOCK}

    def trial(self, model: str, number: int) -> Path:
        """The folder of one trial."""
        return self.model(model) / "trials" / f"{number:03d}"

    @contextmanager
    def opened(self, *, resume: bool) -> Iterator[None]:
        """Create and lock the folder, and remove its temporary files at the end.

        After a usage error, a folder created here is removed again, unless something was measured.

        Raises:
            JobError: the folder holds a study already, holds no study to resume, or another run is using it.
        """
        if resume:
            self.existing(self.path)
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with locked(self.path, option="--out", holder="another run"):
            if self.database.exists() and not resume:
                raise JobError(f"{self.path}: holds a study already; use --resume, or choose another --out")
            # A killed run may have left temporary files.
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir()
            try:
                yield
            except UsageError:
                if made and not self.database.exists():
                    _remove(made)
                raise
            finally:
                shutil.rmtree(self.work, ignore_errors=True)


def _remove(made: Sequence[Path]) -> None:
    """Remove a folder with its contents, and those given parents that are empty."""
    shutil.rmtree(made[0], ignore_errors=True)
    with suppress(OSError):
        for folder in made[1:]:
            folder.rmdir()
