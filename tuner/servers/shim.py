"""Replaces itself by another program that dies with the process that started it.

Run as `python -I -S shim.py OWNER_PID PROGRAM ARGUMENT...`. It asks the kernel to send SIGKILL when the owner
ends, which survives `execv`. Popen's `preexec_fn` would not be safe in a program with threads. It imports the standard
library alone, so that it takes a few ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Request the signal, check that the owner still lives, and run the program."""
    owner, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != int(owner):
        sys.exit("the process that started this server is gone")
    os.execv(command[0], command)  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    main()
