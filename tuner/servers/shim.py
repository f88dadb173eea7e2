"""Replaces itself by another program, which is killed when the process that started it ends.

Run as `python -I -S shim.py OWNER_PID CORES PROGRAM ARGUMENT...`. CORES is such as `0,1`; empty: those of the owner. It
requests SIGKILL from the kernel for the end of the owner; the request survives `execv`. Popen's `preexec_fn` would not
be safe in a program with threads. The shim imports only the standard library, so it takes a few ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Request the signal, check that the owner still lives, pin this process, and run the program."""
    owner, cores, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(owner):
        sys.exit("the process that started this server is gone")
    if cores:
        os.sched_setaffinity(0, map(int, cores.split(",")))
    os.execv(command[0], command)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
