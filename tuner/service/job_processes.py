"""All processes that the process of a job has started."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

from tuner.core.lease import Lease, boot_id
from tuner.core.proc import pid_namespace, read_state
from tuner.service.place import VARIABLE

# In s: a killed process ends within ms, but longer with much GPU memory.
_DEADLINE_S = 10.0
_LOOK_S = 0.01


def end_processes_of(lease: Lease) -> Iterator[str]:
    """Kill all processes that a job's process has started, and itself if it still lives.

    They are in its session, or have its lease in their environment.

    Yields:
        The processes that did not end within 10 s.
    """
    if not _is_of_this_boot(lease):
        return
    until = time.monotonic() + _DEADLINE_S
    while found := processes_of(lease):
        if time.monotonic() > until:
            yield from (f"SIGKILL does not end process {process.pid}" for process in found)
            return
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(_LOOK_S)


def processes_of(lease: Lease) -> list[psutil.Process]:
    """The running processes that a job's process has started, and itself.

    Args:
        lease: The lease of the job's process.
    """
    own_session = _session_is_its(lease)
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and _is_of(process, lease, own_session=own_session)
    ]


def _is_of_this_boot(lease: Lease) -> bool:
    """Whether its processes may still run, and are visible here."""
    return (lease.boot, lease.namespace) == (boot_id(), pid_namespace())


def _session_is_its(lease: Lease) -> bool:
    """Whether the session with its pid is its own. The kernel gives a pid out again when nothing has it any more."""
    state = read_state(lease.pid)
    return state is None or state.started == lease.started


def _is_of(process: psutil.Process, lease: Lease, *, own_session: bool) -> bool:
    state = read_state(process.pid)
    if state is None or state.ended:
        return False
    try:
        if own_session and os.getsid(process.pid) == lease.pid:
            return True
        return process.environ().get(VARIABLE) == str(lease)
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return False
