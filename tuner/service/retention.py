"""Removes what old jobs no longer need: server logs of trials, and points of the events that later events repeat.

Results stay: submission, states, `front.json`, `best/`, `report.html`, the study and proposals.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from tuner.client.resources import FINAL
from tuner.core.atomic_file import write_atomically
from tuner.core.boundary import in_one_line
from tuner.core.errors import JobError, TritontuneError
from tuner.core.quantities import parse_duration
from tuner.service.job_folder import JobFolder
from tuner.service.store.database import Clock, utc_now
from tuner.service.store.jobs import JobFilter
from tuner.service.store.pages import every
from tuner.service.store.store import Store
from tuner.service.threads import running

_log = logging.getLogger(__name__)

# Not shown as a file of the job.
_DONE = ".pruned"
_LOOK_S = 3600.0
_LOGS = re.compile(r"server\.log(\..*)?")
_DAYS = re.compile(r"([1-9][0-9]{0,4}) *d", re.ASCII)
# The beginning of an event with a point, as `EventLog` writes it.
_POINT = re.compile(rb'\{"seq":\d+,"at":"[^"]*","version":\d+,"type":"point",')


def parse_keep(text: str) -> timedelta:
    """The time in `--keep`: `90d`, or a duration such as `36h`.

    Raises:
        JobError: it is neither.
    """
    if days := _DAYS.fullmatch(text.strip()):
        return timedelta(days=int(days[1]))
    try:
        return timedelta(seconds=parse_duration(text, units=("d", "h")))
    except ValueError as error:
        raise JobError(f"--keep: {error}") from None


@dataclass(frozen=True)
class Pruned:
    """What was removed.

    Attributes:
        jobs: Number of jobs.
        size: In bytes.
        problems: A line for each job of which something could not be removed.
    """

    jobs: int = 0
    size: int = 0
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.size / 1e6:,.1f} MB of logs and points of {self.jobs} old job{'s' * (self.jobs != 1)} removed"


class Retention:
    """Prunes the folders of jobs that ended long ago.

    Args:
        store: The jobs.
        jobs: The folder of the jobs' folders.
        keep: How long the folder of a job stays as it is after its end.
        clock: The time, UTC.
    """

    def __init__(self, store: Store, jobs: Path, keep: timedelta, clock: Clock = utc_now) -> None:
        self._store, self._jobs, self._keep, self._clock = store, jobs, keep, clock

    def step(self) -> Pruned:
        """Prune what is due. A job that has not ended is never touched.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        before = self._clock() - self._keep
        done, size, problems = 0, 0, []
        for job in every(partial(self._store.jobs, JobFilter(states=sorted(FINAL)))):
            folder = JobFolder.of(self._jobs, job.id)
            if job.ended_at is None or job.ended_at > before or (folder.path / _DONE).exists():
                continue
            try:
                size += prune(folder)
                done += 1
            except FileNotFoundError:  # the folder was removed
                continue
            except OSError as error:
                problems.append(f"job {job.id}: not pruned: {in_one_line(error)}")
        return Pruned(done, size, tuple(problems))

    def running(self) -> AbstractContextManager[None]:
        """Prune what is due now and every hour, in a thread, as long as the context lasts."""
        return running(self._run, "retention")

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                pruned = self.step()
            except TritontuneError as error:
                _log.warning("retention: %s", error)
            else:
                for problem in pruned.problems:
                    _log.warning("%s", problem)
                if pruned.jobs:
                    _log.info("%s", pruned)
            stop.wait(_LOOK_S)


def prune(folder: JobFolder) -> int:
    """Prune the folder of a job that has ended. Returns the bytes that were removed.

    Raises:
        OSError: something cannot be removed.
    """
    size = sum(map(_removed, _logs_in(folder.run))) + _without_points(folder.events)
    (folder.path / _DONE).touch()
    return size


def _logs_in(run: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(run):
        yield from (Path(parent) / name for name in files if _LOGS.fullmatch(name))


def _removed(file: Path) -> int:
    size = file.lstat().st_size
    file.unlink()
    return size


def _without_points(events: Path) -> int:
    """Remove the points of trials: the event at the end of a trial has them all. Other events keep their numbers."""
    try:
        before = events.read_bytes()
    except FileNotFoundError:
        return 0
    after = b"".join(line for line in before.splitlines(keepends=True) if not _is_point_of_trial(line))
    if len(after) < len(before):
        write_atomically(events, after)
    return len(before) - len(after)


def _is_point_of_trial(line: bytes) -> bool:
    if not _POINT.match(line):
        return False
    try:
        # A point of a measurement, which has no trials, is its result.
        return json.loads(line)["trial"] is not None
    except (ValueError, KeyError):
        return False
