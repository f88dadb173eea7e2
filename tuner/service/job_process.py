"""The process of a job, as the service sees it: started, adopted, interrupted, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from tuner.core.lease import Lease, boot_id
from tuner.core.proc import describe_exit, lives, pid_namespace
from tuner.service.job_folder import JobFolder
from tuner.service.place import PYTHON, Place, arguments_of, command
from tuner.service.spare import LastingProcess, Spare

# Those that nobody follows any more; they must be waited for all the same.
_left: list[LastingProcess] = []


class JobProcess:
    """The process of a job that was started here, or by a service before this one.

    Args:
        folder: The folder of the job.
        own: The process, if it was started here.
    """

    def __init__(self, folder: JobFolder, own: LastingProcess | None = None) -> None:
        self._folder = folder
        self._own = own

    @classmethod
    def start(
        cls,
        folder: JobFolder,
        lock: int,
        place: Place,
        *,
        environment: Mapping[str, str],
        secrets: Mapping[str, str],
        spare: Spare | None = None,
    ) -> JobProcess:
        """Start the process in a session of its own; it holds the lock as long as it lives.

        Args:
            folder: The folder of the job.
            lock: The descriptor of its lock.
            place: Where it runs.
            environment: Its environment.
            secrets: The secrets of the job by name; they come to it through its stdin.
            spare: A process that waits for a job; None: a new one is started.

        Raises:
            OSError: it cannot be started.
        """
        _left[:] = [process for process in _left if process.poll() is None]
        with _as_file(secrets) as stdin, folder.log.open("ab") as log:
            own = spare and spare.take(arguments_of(folder, place), stdin=stdin, log=log.fileno(), lock=lock)
            own = own or LastingProcess(
                command(folder, lock, place),
                env=environment,
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                start_new_session=True,
            )
        return cls(folder, own)

    @property
    def is_ours(self) -> bool:
        """Whether it was started here."""
        return self._own is not None

    @property
    def lease(self) -> Lease | None:
        """Its lease; None: it has not begun its work."""
        return self._folder.lease()

    @property
    def cores(self) -> frozenset[int]:
        """The cores that it may use; empty: unknown."""
        lease = self.lease
        if lease is not None and _is_here(lease):
            with suppress(OSError):
                return frozenset(os.sched_getaffinity(lease.pid))
        return frozenset()

    def lives(self) -> bool:
        """Whether it lives."""
        if self._own is not None:
            self._own.poll()
        return self._folder.is_running()

    @property
    def end_in_words(self) -> str:
        """How it ended, in words: `was ended by SIGKILL`; empty: unknown."""
        code = self._own.poll() if self._own else None
        return "" if code is None else describe_exit(code)

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal. Returns whether it could be sent: it has ended, or runs elsewhere, if not."""
        if self._own is not None:
            self._own.send_signal(number)  # nothing, if it has ended
            return self._own.returncode is None
        lease = self.lease
        if lease is None or not _is_here(lease):
            return False
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(lease.pid)
            try:
                # Another process may have got its pid, but not from here on.
                if lives(lease.pid, lease.started):
                    signal.pidfd_send_signal(descriptor, number)
                    return True
            finally:
                os.close(descriptor)
        return False

    def leave(self) -> None:
        """Follow it no longer."""
        if self._own is not None and self._own.poll() is None:
            _left.append(self._own)


def _is_here(lease: Lease) -> bool:
    """Whether its process can be seen from here."""
    return (lease.boot, lease.namespace) == (boot_id(), pid_namespace())


class Clearing:
    """The process that removes what a job's process has left.

    Args:
        folder: The folder of the job.
        environment: Its environment.
        secrets: The secrets of the job by name.
    """

    def __init__(self, folder: JobFolder, environment: Mapping[str, str], secrets: Mapping[str, str]) -> None:
        self._report = os.memfd_create("report")
        with _as_file(secrets) as stdin, folder.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 (our own Python)
                clearing_command(folder),
                env=environment,
                stdin=stdin,
                stdout=self._report,
                stderr=log,
                start_new_session=True,
            )

    def poll(self) -> Sequence[str] | None:
        """What is left, in words; empty: nothing. None: it is still at work."""
        code = self._process.poll()
        if code is None:
            return None
        lines = os.pread(self._report, 1 << 16, 0).decode(errors="replace").splitlines()
        return lines or ([f"the removal of leftovers {describe_exit(code)}; see job.log"] if code else [])

    def close(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._report)


def clearing_command(folder: JobFolder) -> list[str]:
    """The command line of the process that removes leftovers; it prints what is left."""
    return [*PYTHON, "-m", "tuner.service.leftovers", str(folder.path)]


@contextmanager
def _as_file(secrets: Mapping[str, str]) -> Iterator[int]:
    """A file in memory with the secrets, for the stdin of a process."""
    descriptor = os.memfd_create("secrets")
    try:
        os.pwrite(descriptor, json.dumps(dict(secrets)).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
