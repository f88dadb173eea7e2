"""Load workers that are forked off a process which has imported all they need, and so start in a few ms.

An interpreter of their own that imports the same takes 0.1 to 0.2 s of CPU time, and tests start hundreds.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import IO, Any

from tuner.core.lean import spare_client
from tuner.load import worker
from tuner.load.worker_channel import Channel

_MAIN = "import sys; sys.path[:] = {path!r}; from support.nursery import be_nursery; be_nursery(int(sys.argv[1]))"
_DRIVERS = ("tuner.load.wire.driver", "tuner.load.aio.grpcio_driver", "tuner.load.aio.http_driver")
# The number of the system call, and of linux/sched.h: the new process is a child of its parent's parent.
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_PARENT = 0x8000


class Nursery:
    """The owner's view of that process, which is started with the first worker."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def popen(
        self, command: Sequence[str], *, stdout: IO[bytes], pass_fds: Sequence[int], **_: Any
    ) -> subprocess.Popen[bytes]:
        """What `subprocess.Popen` is for load engines: the worker is a child of this process."""
        return _Forked(self, command, stdout, *pass_fds)

    def fork(self, words: int, end: int) -> int:
        """Start a worker with this process's environment and folder. Returns its pid.

        Args:
            words: Descriptor of what it writes to.
            end: Of its end of the channel to its owner.
        """
        with self._lock:
            channel = self._channel or self._started()
            channel.send((dict(os.environ), str(Path.cwd())), (words, end))
            pid, _ = channel.receive()
        assert isinstance(pid, int)
        return pid

    def close(self) -> None:
        """End the process."""
        if self._channel and self._process:
            self._channel.close()
            self._process.wait(60)

    def _started(self) -> Channel:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-I", "-c", _MAIN.format(path=sys.path), str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
        self._channel = Channel(ours)
        return self._channel


class _Forked(subprocess.Popen[bytes]):
    """A worker of a nursery, with all that a process of `subprocess` can do."""

    def __init__(self, nursery: Nursery, command: Sequence[str], words: IO[bytes], end: int) -> None:
        self._nursery, self._ends = nursery, (words.fileno(), end)
        super().__init__(command, stdout=words)

    def _execute_child(self, *_: object) -> None:
        self.pid = self._nursery.fork(*self._ends)
        self._child_created = True


def be_nursery(end: int) -> None:
    """The process: forks a worker for each message, and ends with its owner."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spare_client()
    for driver in _DRIVERS:
        import_module(driver)
    gc.collect()
    gc.freeze()
    clone: Any = ctypes.PyDLL(None, use_errno=True).syscall
    after_fork: Any = ctypes.pythonapi.PyOS_AfterFork_Child
    with Channel(socket.socket(fileno=end)) as channel:
        while True:
            try:
                order, descriptors = channel.receive()
            except EOFError:
                return
            pid = clone(_CLONE[platform.machine()], _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
            if pid == 0:
                after_fork()
                _be_worker(*order, *descriptors)
            if pid < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            channel.send(pid)
            for descriptor in descriptors:
                os.close(descriptor)


def _be_worker(environment: dict[str, str], folder: str, words: int, end: int) -> None:
    """The new process, as `WorkerEngine` starts one. Does not return."""
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        for output in (1, 2):
            os.dup2(words, output)
        os.closerange(3, end)
        os.closerange(end + 1, 4096)
        sys.argv[1:] = [str(end)]
        worker.main()
    except BaseException:  # noqa: BLE001 (as an interpreter that ends by it)
        traceback.print_exc()
    finally:
        os._exit(1)
