"""The layout of the work folder of the nights."""

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
    """`WORK/`: a folder for each night, `nights/YYYYmmdd-HHMMSS-mmm/REPOSITORY/MODEL/`, and the proposals."""

    path: Path

    @property
    def nights(self) -> list[Path]:
        """The nights' folders, the oldest first."""
        return sorted(folder for folder in (self.path / "nights").glob("*") if folder.is_dir())

    def new_night(self, began: datetime) -> Path:
        """Make the folder of a new night, named by its start in milliseconds."""
        folder = self.path / "nights" / f"{began:%Y%m%d-%H%M%S}-{began.microsecond // 1000:03d}"
        folder.mkdir(parents=True)
        return folder

    def clear_up(self) -> Iterator[str]:
        """Remove the unfinished work of killed nights; measurements stay. Yields a message for each removed folder."""
        for night in self.nights:
            if not (night / REPORT).exists():
                for run in night.glob("*/*"):
                    shutil.rmtree(RunFolder(run).work, ignore_errors=True)
                if not any(night.glob("*/*/study.db")):
                    shutil.rmtree(night, ignore_errors=True)
                    yield f"removed the folder of night {night.name}: it was killed before it had measured anything"

    def last_run(self, task_folder: str, model: str, *, before: Path) -> Path | None:
        """The latest night's run folder of a model with a measurement; None: there is none."""
        for night in reversed(self.nights):
            run = RunFolder(night / task_folder)
            if night != before and run.database.is_file() and _has_trials(run, model):
                return run.path
        return None

    def prune(self, keep: int) -> None:
        """Remove the folders of all nights but the last `keep`."""
        for night in self.nights[:-keep]:
            shutil.rmtree(night, ignore_errors=True)


def _has_trials(run: RunFolder, model: str) -> bool:
    try:
        return model in Study.models(run.database) and bool(Study.load(run.database, model).trials)
    except TritontuneError:  # a study of another version
        return False
