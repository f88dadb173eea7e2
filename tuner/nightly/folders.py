"""What lies where in the work folder of the nights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuner.core.errors import TritontuneError
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

REPORT = "report.json"


@dataclass(frozen=True)
class WorkFolder:
    """`WORK/`: a folder for each night, `nights/YYYYmmdd-HHMMSS-mmm/REPOSITORY/MODEL/`, and what is proposed."""

    path: Path

    @property
    def nights(self) -> list[Path]:
        """The nights' folders, the oldest first."""
        return sorted(folder for folder in (self.path / "nights").glob("*") if folder.is_dir())

    def new_night(self, began: datetime) -> Path:
        """A folder for a night that begins, named by the time, milliseconds included."""
        folder = self.path / "nights" / f"{began:%Y%m%d-%H%M%S}-{began.microsecond // 1000:03d}"
        folder.mkdir(parents=True)
        return folder

    def clear_up(self) -> Iterator[str]:
        """Remove what killed nights were at; what they had measured stays. Yields a line for each."""
        for night in self.nights:
            if not (night / REPORT).exists():
                for run in night.glob("*/*"):
                    shutil.rmtree(RunFolder(run).work, ignore_errors=True)
                if not any(night.glob("*/*/study.db")):
                    shutil.rmtree(night, ignore_errors=True)
                    yield f"removed the folder of night {night.name}: it was killed before it had measured anything"

    def last_run(self, task_folder: str, model: str, *, before: Path) -> Path | None:
        """The latest night's run of a model, of those that measured something; None: there is none."""
        for night in reversed(self.nights):
            run = RunFolder(night / task_folder)
            if night != before and run.database.is_file() and _knows(run, model):
                return run.path
        return None

    def prune(self, keep: int) -> None:
        """Remove the folders of all nights but the last ones."""
        for night in self.nights[:-keep]:
            shutil.rmtree(night, ignore_errors=True)


def _knows(run: RunFolder, model: str) -> bool:
    try:
        return model in Study.models(run.database) and bool(Study.load(run.database, model).trials)
    except TritontuneError:  # of another version
        return False
