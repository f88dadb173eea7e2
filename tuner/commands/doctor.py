"""`tritontune doctor`: what tuning needs, whether it is there, and what to do when it is not."""

from __future__ import annotations

import platform
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tuner.errors import TritontuneError, TuningError
from tuner.machine import Machine
from tuner.models.repository import ModelRepository
from tuner.models.tunable import why_not_tunable
from tuner.servers.docker import engine_problem
from tuner.servers.installation import find_triton


@dataclass(frozen=True)
class Check:
    """One line of the doctor's.

    Attributes:
        ok: Whether it is as it should be; None: it is not needed by itself.
        detail: What was found, or what to do.
    """

    name: str
    ok: bool | None
    detail: str


def doctor(repository: str | None, triton_path: str | None, image: str | None) -> None:
    """Print a line for each check.

    Raises:
        TuningError: something is missing without which nothing can be tuned.
    """
    console = Console()
    missing = []
    for check in checks(repository, Path(triton_path) if triton_path else None, image):
        mark = {True: "[green]ok[/]  ", None: "[dim]--[/]  ", False: "[red]fix[/] "}[check.ok]
        console.print(f"{mark}{check.name:<11}{escape(check.detail)}", soft_wrap=True, highlight=False)
        if check.ok is False:
            missing.append(check.name)
    if missing:
        raise TuningError(f"to mend first: {', '.join(missing)}")


def checks(repository: str | None, triton_path: Path | None, image: str | None) -> Iterator[Check]:
    """Look at everything in turn."""
    yield Check("python", True, f"{platform.python_version()} ({sys.executable})")  # noqa: FBT003 (reads as a row)
    triton = _attempt("triton", lambda: find_triton(triton_path).description)
    docker = _docker(image)
    # One of the two ways to a server is enough.
    yield triton if triton.ok or docker.ok is None else Check("triton", None, triton.detail)
    yield _libpython()
    yield docker
    machine = Machine.here()
    gpus = ", ".join(f"{gpu.name} ({gpu.memory_bytes / 2**30:.0f} GiB)" for gpu in machine.gpus)
    yield Check("cpu", True, f"{machine.cpus} cores")  # noqa: FBT003 (reads as a row)
    yield Check("gpu", True if gpus else None, gpus or "none found through NVML; models run on the CPU")
    yield _ports()
    if repository is not None:
        yield from _repository(Path(repository))
