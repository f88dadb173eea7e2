"""Notes how a run measures: what was asked, with which versions, on which machine."""

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
    """Of a run that begins now.

    Args:
        job: What is asked.
        server: What the server runs on.
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
    """As Linux has it of its first core; on some architectures it does not say."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
