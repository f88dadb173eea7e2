"""Reads process data from `/proc` that psutil lacks.

These are exit codes of zombies, and start times in clock ticks, which do not change with the system clock.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

_ENDED = frozenset("ZXx")


@dataclass(frozen=True)
class ProcessState:
    """A process at one moment (proc(5), /proc/PID/stat).

    Attributes:
        state: One letter; `Z` is a zombie.
        started: Clock ticks from boot to its start; with the pid, it identifies the process until the next boot.
        exit_code: The exit code of a zombie, or the negative number of the signal that ended it.
    """

    state: str
    started: int
    exit_code: int

    @property
    def ended(self) -> bool:
        """Whether it has ended, and only its entry in the process table is left."""
        return self.state in _ENDED


def read_state(pid: int) -> ProcessState | None:
    """The state of the process with this pid; None: there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, which may contain any character.
    fields = text.rpartition(")")[2].split()
    return ProcessState(state=fields[0], started=int(fields[19]), exit_code=os.waitstatus_to_exitcode(int(fields[49])))


def lives(pid: int, started: int) -> bool:
    """Whether the process with this pid and this start time, in clock ticks, is still running."""
    now = read_state(pid)
    return now is not None and now.started == started and not now.ended


def pid_namespace() -> int:
    """The number of our pid namespace; each container has its own."""
    return Path("/proc/self/ns/pid").stat().st_ino


def oom_kills() -> int | None:
    """Number of processes that the kernel has killed for lack of memory since boot; None: not reported."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def describe_exit(code: int) -> str:
    """How a process ended, in words: `ended with exit code 7`, `was ended by SIGABRT`."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-code}"
