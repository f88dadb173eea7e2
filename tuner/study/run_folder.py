"""The folder that a run leaves, and what lies where in it."""

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


@dataclass(frozen=True)
class RunFolder:
    """`RUN_DIR/`: the study of every model, and what people read of it."""

    path: Path

    @classmethod
    def default(cls) -> RunFolder:
        """A new folder below the current one, named by the time."""
        return cls(Path("tritontune-runs") / time.strftime("%Y%m%d-%H%M%S"))

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of an earlier run.

        Raises:
            JobError: it is none.
        """
        folder = cls(path)
        if not path.exists():
            raise JobError(f"{path}: no such folder; give the RUN_DIR of a run")
        if not folder.database.is_file():
            raise JobError(f"{path}: not a run folder (it has no {folder.database.name})")
        return folder

    @property
    def database(self) -> Path:
        """The studies of all models."""
        return self.path / "study.db"

    @property
    def job(self) -> Path:
        """What the run was asked for."""
        return self.path / "job.yaml"

    @property
    def report(self) -> Path:
        """The page for people, of all models."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What went wrong that nobody foresaw; there only where the run ended by that."""
        return self.path / LOG

    @property
    def work(self) -> Path:
        """What only lives as long as the run: staged repositories and the like."""
        return self.path / ".work"

    @property
    def own_configs(self) -> Path:
        """What the models of a server that runs were before; there while candidates are in their place."""
        return self.path / ".own_configs.json"

    def model(self, name: str) -> Path:
        """What there is of one model.

        Raises:
            JobError: the folder of a run can have none of that name.
        """
        reason = "is a file of the run itself" if name in self._own_names else why_no_folder(name)
        if reason:
            raise JobError(f"{self.path}: cannot hold model {name!r}: the name {reason}")
        return self.path / name

    @property
    def _own_names(self) -> set[str]:
        own = (self.database, self.job, self.report, self.log, self.work, self.own_configs)
        return {*(path.name for path in own), LOCK}

    def trial(self, model: str, number: int) -> Path:
        """What there is of one trial."""
        return self.model(model) / "trials" / f"{number:03d}"

    @contextmanager
    def opened(self, *, resume: bool) -> Iterator[None]:
        """Make the folder, hold it against other runs, and clear away its work at the end.

        What was asked wrongly leaves no folder that was not there before, unless something was measured.

        Raises:
            JobError: there is a study in it already, or none to resume, or another run is at work in it.
        """
        if resume:
            self.existing(self.path)
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with locked(self.path, option="--out", holder="another run"):
            if self.database.exists() and not resume:
                raise JobError(f"{self.path}: holds a study already; use --resume, or choose another --out")
            # A run that was killed had no time to clear up.
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
    """Remove a folder with all that is in it, and those above it, in order, as far as nothing else is in them."""
    shutil.rmtree(made[0], ignore_errors=True)
    with suppress(OSError):
        for folder in made[1:]:
            folder.rmdir()
