"""CPU time and memory of a server's processes, from /proc."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# To find child processes, all processes are scanned: at most once a second, and with at most this share of a core.
_LOOK_AGAIN_S = 1.0
_LOOKING_SHARE = 0.02


@dataclass(frozen=True)
class ServerUsage:
    """CPU and memory usage of a server and its processes.

    Attributes:
        cpu_s: CPU seconds since the start.
        memory_bytes: Current resident memory; shared memory counts once.
    """

    cpu_s: float
    memory_bytes: int


class ProcessUsage:
    """Reads the usage of a process and its descendants, as far as they are visible on this machine.

    Args:
        pid: The pid of the server on this machine.
        mark: The mark on its command line, to recognise it: in a container, the pid may belong to another process.
    """

    def __init__(self, pid: int, mark: str) -> None:
        self._pid = pid
        self._mark = mark.encode()
        self._family: tuple[int, ...] = ()
        self._look_at = float("-inf")

    def read(self) -> ServerUsage | None:
        """The usage now; None: the processes are not visible. Takes well below 1 ms; once a second, a few ms."""
        began = time.monotonic()
        if began > self._look_at:
            self._family = self._found()
            now = time.monotonic()
            self._look_at = now + max(_LOOK_AGAIN_S, (now - began) / _LOOKING_SHARE)
        parts = [part for pid in self._family if (part := _part(pid))]
        if not parts or not sum(own + shared for _, own, shared in parts):  # ended processes hold no memory
            return None
        return ServerUsage(
            cpu_s=sum(cpu_s for cpu_s, _, _ in parts),
            # Most shared memory is the same in all processes: libraries and tensors. So the largest value counts once.
            memory_bytes=sum(own for _, own, _ in parts) + max(shared for _, _, shared in parts),
        )

    def _found(self) -> tuple[int, ...]:
        try:
            if self._pid <= 0 or self._mark not in Path(f"/proc/{self._pid}/cmdline").read_bytes():
                return ()
            children = psutil.Process(self._pid).children(recursive=True)
        except (OSError, psutil.Error):
            return ()
        return (self._pid, *(child.pid for child in children))


def _part(pid: int) -> tuple[float, int, int] | None:
    """CPU seconds, own resident bytes, and shared ones of a process (proc(5): `stat`, `statm`); None: it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        memory = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except OSError:
        return None
    # The second field is the program's name in parentheses, which may contain any character.
    fields = stat.rpartition(")")[2].split()
    resident, shared = (int(pages) * _PAGE_BYTES for pages in memory.split()[1:3])
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND, resident - shared, shared
