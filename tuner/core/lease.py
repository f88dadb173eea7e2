"""Leases: the owner of a folder, a container or an unfinished file.

The owner is a process. Its id alone says little: other hosts that share a folder have a process of that id, too, as
other containers do, and so has the same host after it was started anew. A lease names all of them, and what another
host or container owns is never ours to remove.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tuner.core.proc import lives, pid_namespace, read_state

_MACHINE_ID = Path("/etc/machine-id")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN = "0" * 8

FORM = r"([0-9a-f]{8})([0-9a-f]{8})-([0-9a-f]+)-(\d+)-(\d+)"
"""How a lease is written, as a regular expression with its five parts."""


@dataclass(frozen=True)
class Lease:
    """A process, named so that no other one anywhere has the same name.

    Attributes:
        host: Eight hexadecimal digits of its host; zeros where nothing tells hosts apart.
        boot: Eight of the time since its kernel was started.
        namespace: Its pid namespace.
        pid: The process.
        started: When it started, in ticks since boot; another process may get its pid later.
    """

    host: str
    boot: str
    namespace: int
    pid: int
    started: int

    @staticmethod
    def parse(text: str) -> Lease | None:
        """Read what `str` has made of one; None of anything else."""
        found = re.fullmatch(FORM, text, re.ASCII)
        return Lease(*parts_of(found)) if found else None

    def __str__(self) -> str:
        return f"{self.host}{self.boot}-{self.namespace:x}-{self.pid}-{self.started}"

    @property
    def abandoned(self) -> bool:
        """Whether the process is known to be gone: it has ended here, or before this host was started anew."""
        if self.boot == boot_id():
            return self.namespace == pid_namespace() and not lives(self.pid, self.started)
        return self.host == host_id() != _UNKNOWN


def own_lease() -> Lease:
    """Of this process."""
    pid = os.getpid()
    own = read_state(pid)
    if own is None:
        raise RuntimeError("/proc shows other processes than ours")
    return Lease(host_id(), boot_id(), pid_namespace(), pid, own.started)


def parts_of(found: re.Match[str]) -> tuple[str, str, int, int, int]:
    """The parts of a lease, of what begins with `FORM`."""
    host, boot, namespace, pid, started, *_ = found.groups()
    return host, boot, int(namespace, 16), int(pid), int(started)


@cache
def host_id() -> str:
    """Of this host; zeros where it has no id of its own, as in many containers.

    Copies of a machine may share the id, but hardly the name as well.
    """
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return _digest(f"{machine} {socket.gethostname()}") if machine not in {"", "uninitialized"} else _UNKNOWN


@cache
def boot_id() -> str:
    """Of this kernel since it was started: no other kernel has the same."""
    return _digest(_BOOT_ID.read_text(encoding="ascii").strip())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[: len(_UNKNOWN)]
