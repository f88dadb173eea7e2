"""Reads process data from `/proc` that psutil does not have.

That is exit codes of zombies, and start times in clock ticks, which do not change with the system clock.
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
        started: Clock ticks from boot to its start: with the pid, it names a process for as long as the machine is up.
        exit_code: The exit code of a zombie, or the negative number of the signal that ended it.
    """

    state: str
    started: int
    exit_code: int

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left but its entry in the process table."""
        return self.state in _ENDED


def read_state(pid: int) -> ProcessState | None:
    """The state of a process, or None when there is none of that pid."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, and may itself hold any character.
    fields = text.rpartition(")")[2].split()
    return ProcessState(state=fields[0], started=int(fields[19]), exit_code=os.waitstatus_to_exitcode(int(fields[49])))


def lives(pid: int, started: int) -> bool:
    """Whether the process that started at that tick is still running."""
    now = read_state(pid)
    return now is not None and now.started == started and not now.ended


def pid_namespace() -> int:
    """The number of the namespace in which our pids mean something; containers have their own."""
    return Path("/proc/self/ns/pid").stat().st_ino


def oom_kills() -> int | None:
    """How often the kernel has killed for want of memory since boot, or None where it does not say."""
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
