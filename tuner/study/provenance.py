"""The provenance of a study's measurements."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import psutil

from tuner.core.machine import Machine
from tuner.core.record import Record
from tuner.core.versions import system, versions
from tuner.options.command_line import command_line
from tuner.options.tune_job import TuneJob

_CPUINFO = Path("/proc/cpuinfo")


class Provenance(Record):
    """The provenance of one run of a study; each `--resume` is another run. It contains no secrets.

    Attributes:
        began: Start of the run in UTC, such as `2026-05-17T02:00:00Z`.
        command: An equivalent command line.
        budget_s: Budget of the model, in seconds.
        tritontune: Version of tritontune.
        python: Version of Python.
        packages: Versions of the packages that measurements depend on, by name.
        system: Operating system and kernel of the machine that ran tritontune.
        processor: Processor of that machine; empty: unknown.
        memory_bytes: Memory of that machine, in bytes; None: unknown.
        gpus: Names of the GPUs that the server could use, in order.
        cpus: Processor cores that the server could use; None: unknown.
    """

    began: str
    command: str
    budget_s: float
    tritontune: str
    python: str
    packages: Mapping[str, str]
    system: str
    processor: str
    memory_bytes: int | None
    gpus: tuple[str, ...]
    cpus: int | None = None


def provenance(job: TuneJob, server: Machine) -> Provenance:
    """The provenance of a run that begins now.

    Args:
        job: The job.
        server: The machine of the server.
    """
    return Provenance(
        began=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=command_line(job),
        budget_s=job.budget,
        tritontune=version("tritontune"),
        python=platform.python_version(),
        packages=versions(),
        system=system(),
        processor=_processor(),
        memory_bytes=psutil.virtual_memory().total,
        gpus=tuple(gpu.name for gpu in server.gpus),
        cpus=server.cpus,
    )


def _processor() -> str:
    """The processor's name as Linux reports it for the first core; empty: unknown, as on some architectures."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
