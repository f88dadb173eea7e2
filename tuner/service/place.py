"""Where a job runs, and how its process is started."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tuner.client.resources import Job
from tuner.service.job_folder import JobFolder

VARIABLE = "TRITONTUNE_JOB"
"""The environment variable that holds the lease of a job's process, in it and in all that it starts."""

# A file of the current folder, which may be a model repository, must not take the place of a module.
PYTHON: tuple[str, ...] = (sys.executable, "-P") if sys.version_info >= (3, 11) else (sys.executable,)
"""The command line of our interpreter."""

INTERRUPTED = 130
"""Exit code after SIGTERM."""


@dataclass(frozen=True)
class Place:
    """Where a job runs.

    Attributes:
        gpus: The option `gpus`, if the service chose a GPU; None: the job's own options count.
        cores: The cores of its slot; empty: all.
        config: The config file of the service; None: there is none.
    """

    gpus: str | None = None
    cores: frozenset[int] = frozenset()
    config: Path | None = None


def command(folder: JobFolder, lock: int, place: Place) -> list[str]:
    """The command line of a job's process.

    Args:
        folder: The folder of the job.
        lock: The descriptor of its lock, which the process inherits.
        place: Where it runs.
    """
    return [*PYTHON, "-m", "tuner.service.worker", *arguments_of(folder, place), f"--lock={lock}"]


def arguments_of(folder: JobFolder, place: Place) -> list[str]:
    """The arguments of a job's process, without its lock; see `command`."""
    words = [str(folder.path)]
    if place.gpus is not None:
        words.append(f"--gpus={place.gpus}")
    if place.cores:
        words.append(f"--cores={','.join(map(str, sorted(place.cores)))}")
    return [*words, f"--config={place.config}"] if place.config else words


def nights_of(folder: JobFolder, job: Job) -> Path:
    """The work folder of the nights of a job's target; of a job without a target, that of its repository.

    Args:
        folder: The folder of the job.
        job: The job.
    """
    if job.target:
        return folder.data / "nightly" / job.target
    where = str(job.repository or job.job.get("repository"))
    # Names of targets do not begin so.
    return folder.data / "nightly" / f"_{sha256(where.encode()).hexdigest()[:12]}"
