"""Leases: the owner of a folder, a container or a temporary file.

The owner is a process. Its pid is not unique: a process with the same pid may exist on another host that shares the
folder, in another container, or after a reboot. A lease identifies the process among all of these. Files and containers
that another host or container owns are never removed.
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
"""A regular expression for the text of a lease, with a group for each of its five parts."""


@dataclass(frozen=True)
class Lease:
    """A process, identified uniquely across hosts, boots and containers.

    Attributes:
        host: Eight hexadecimal digits that identify the host; zeros if it has no id.
        boot: Eight hexadecimal digits that identify the boot.
        namespace: Number of its pid namespace, as text.
        pid: Its pid.
        started: Its start time in clock ticks since boot, as its pid may be reused.
    """

    host: str
    boot: str
    namespace: int
    pid: int
    started: int

    @staticmethod
    def parse(text: str) -> Lease | None:
        """Parse the result of `str`; None: it is not a lease."""
        match = re.fullmatch(FORM, text, re.ASCII)
        return Lease(*parts_of(match)) if match else None

    def __str__(self) -> str:
        return f"{self.host}{self.boot}-{self.namespace:x}-{self.pid}-{self.started}"

    @property
    def abandoned(self) -> bool:
        """Whether the process is known to have ended, on this host or before its last reboot."""
        if self.boot == boot_id():
            return self.namespace == pid_namespace() and not lives(self.pid, self.started)
        return self.host == host_id() != _UNKNOWN


def own_lease() -> Lease:
    """The lease of this process."""
    pid = os.getpid()
    own = read_state(pid)
    if own is None:
        raise RuntimeError("/proc shows other processes than ours")
    return Lease(host_id(), boot_id(), pid_namespace(), pid, own.started)


def parts_of(match: re.Match[str]) -> tuple[str, str, int, int, int]:
    """The parts of a lease in a text that begins with `FORM`."""
    host, boot, namespace, pid, started, *_ = match.groups()
    return host, boot, int(namespace, 16), int(pid), int(started)


@cache
def host_id() -> str:
    """The id of this host; zeros if the host has none, as in many containers.

    Copies of a virtual machine may share the machine id, so the host name is part of it.
    """
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return _digest(f"{machine} {socket.gethostname()}") if machine not in {"", "uninitialized"} else _UNKNOWN


@cache
def boot_id() -> str:
    """The id of this boot of the kernel, which is unique."""
    return _digest(_BOOT_ID.read_text(encoding="ascii").strip())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[: len(_UNKNOWN)]
