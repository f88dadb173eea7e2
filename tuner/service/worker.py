"""The process of a job: `python -m tuner.service.worker JOB_FOLDER`.

The service starts it in a session of its own, so that it goes on when the service ends. It runs the job as the command
line would, writes the job's events, and ends as `tritontune run` does on SIGTERM. Its final event is the last thing
that it does; without one, the service knows that it was lost or cancelled.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tuner.core.atomic_file import write_atomically
from tuner.core.interrupts import end_on_sigterm
from tuner.core.lease import own_lease
from tuner.service.job_folder import JobFolder
from tuner.service.place import INTERRUPTED, VARIABLE, Place
from tuner.service.spare import await_order


def main(arguments: Sequence[str]) -> int:
    """Run a job. Returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description="Run a job of the service.")
    parser.add_argument("folder", metavar="JOB_FOLDER", type=Path, nargs="?")
    parser.add_argument("--spare", metavar="FD", type=int, help="Socket that the job comes through.")
    parser.add_argument("--lock", metavar="FD", type=int, help="Descriptor of the job's lock. Default: lock it.")
    parser.add_argument("--gpus", metavar="GPUS", help="GPUs of the job's slot.")
    parser.add_argument("--cores", metavar="N,N", type=_cores, default=frozenset(), help="Cores of the job's slot.")
    parser.add_argument("--config", metavar="FILE", type=Path, help="Config file of the service.")
    given = parser.parse_args(arguments)
    if (given.folder is None) == (given.spare is None):
        parser.error("needs either JOB_FOLDER or --spare")
    end_on_sigterm()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The log holds what any model prints, in any locale.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC would log errors that are reported anyway
    try:
        if given.spare is not None:
            order = await_order(given.spare)
            if order is None:
                return 0
            given = parser.parse_args(order)
        with ExitStack() as until_end:
            folder = _claimed(given.folder, given.lock, until_end)
            # It takes a second, in which signals and questions for the owner of the job have their answers already.
            from tuner.service.run_work import run  # noqa: PLC0415

            return run(folder, Place(given.gpus, given.cores, given.config))
    except KeyboardInterrupt:
        return INTERRUPTED


def _cores(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(",")))


def _claimed(path: Path, lock: int | None, until_end: ExitStack) -> JobFolder:
    """The folder of the job, which no other process of it uses. Leaves the lease of this process there."""
    folder = JobFolder(path.resolve())
    if lock is None:
        if until_end.enter_context(folder.claimed()) is None:
            sys.exit(f"job {folder.id}: its process runs already")
    else:
        os.set_inheritable(lock, False)  # noqa: FBT003 (not for servers and load workers, which may outlive this process)
    lease = str(own_lease())
    os.environ[VARIABLE] = lease
    write_atomically(folder.lease_file, f"{lease}\n")
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
