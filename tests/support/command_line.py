"""Runs `tritontune` as a person would: as a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

_TRITONTUNE = str(Path(sys.executable).with_name("tritontune"))


def tritontune(
    *arguments: object, timeout_s: float = 110.0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [_TRITONTUNE, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False, cwd=cwd
    )


def start_tritontune(*arguments: object) -> subprocess.Popen[str]:
    """Start a command, in a process group of its own."""
    return subprocess.Popen(
        [_TRITONTUNE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def servers_of(repository: Path) -> list[psutil.Process]:
    """The servers and stubs that serve what was staged below a folder."""
    return [process for process in psutil.process_iter() if str(repository) in _command_line(process)]


def await_that(condition: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Wait for a condition, which must come true in time."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _command_line(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
    serves = any(Path(word).name.startswith(("tritonserver", "triton_python_backend_stub")) for word in words)
    return " ".join(words) if serves else ""
