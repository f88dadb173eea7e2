"""Records the provenance of a run: its options, versions and machine."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import psutil

from tuner.core.machine import Machine
from tuner.core.versions import system, versions
from tuner.options.command_line import command_line
from tuner.options.tune_job import TuneJob
from tuner.study.provenance import Provenance

_CPUINFO = Path("/proc/cpuinfo")


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
    """The name of the first core as Linux reports it; empty: unknown, as on some architectures."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
