"""A spare process for the next job, which has imported all that a job needs: that takes a second and a half.

It waits for its order, at the other end of a socket, and becomes the process of the job. When the service ends, the
socket is closed, and so it ends.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module

from tuner.service.place import PYTHON

# What Optuna imports when it makes a database.
_LATER = ("optuna.storages._rdb.models", "alembic.command", "alembic.config", "alembic.migration", "alembic.script")
_MOST_BYTES = 1 << 16


class LastingProcess(subprocess.Popen[bytes]):
    """A process that may outlive this one, of which Python would warn."""

    def __del__(self) -> None:
        pass


class Spare:
    """A spare process, as the service sees it.

    Args:
        environment: The environment of the job.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = LastingProcess(
                [*PYTHON, "-m", "tuner.service.worker", f"--spare={theirs.fileno()}"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    @property
    def lives(self) -> bool:
        """Whether it waits for its order."""
        return self._process.poll() is None

    def take(self, arguments: Sequence[str], *, stdin: int, log: int, lock: int) -> LastingProcess | None:
        """Make it the process of a job. It cannot be used again.

        Args:
            arguments: The command line of the job's process, after the module and without its lock.
            stdin: The descriptor of its stdin.
            log: That of its output.
            lock: That of the lock of the job.

        Returns:
            The process; None: it has ended.
        """
        with self._channel, suppress(OSError):
            socket.send_fds(self._channel, [json.dumps(list(arguments)).encode()], [stdin, log, lock])
            if self.lives:
                return self._process
        self.close()
        return None

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


def await_order(descriptor: int) -> list[str] | None:
    """Be a spare process until the order comes.

    Args:
        descriptor: The descriptor of its end of the socket.

    Returns:
        The arguments of the job's process, with its lock; None: there is no job for it.
    """
    import_module("tuner.service.run_work")
    for name in _LATER:
        with suppress(ImportError):
            import_module(name)
    with socket.socket(fileno=descriptor) as channel:
        message, descriptors, *_ = socket.recv_fds(channel, _MOST_BYTES, 3)
    if not message:
        return None
    stdin, log, lock = descriptors
    for theirs, standard in ((stdin, 0), (log, 1), (log, 2)):
        os.dup2(theirs, standard)
    for theirs in (stdin, log):
        os.close(theirs)
    return [*json.loads(message), f"--lock={lock}"]
