"""A Triton that runs as a process."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tuner.core.mark import Mark
from tuner.core.proc import describe_exit
from tuner.options.endpoint import Header
from tuner.servers.processes import end_processes
from tuner.servers.python_envs import remove_python_envs
from tuner.servers.server import End, TritonServer

# Signals of a crash, unlike SIGKILL, which others send.
_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


class ProcessServer(TritonServer):
    """A server that runs as a process, the leader of its own session.

    Args:
        process: The process of the server.
        mark: The mark of all its processes and files.
        model: The name of the model that it loads.
        log: The file that it writes to.
        grpc_address: Its gRPC address, `host:port`.
        command: The command line, with environment variables.
        headers: Headers sent with every request.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        mark: Mark,
        model: str,
        log: Path,
        grpc_address: str,
        command: str,
        headers: tuple[Header, ...] = (),
    ) -> None:
        super().__init__(mark=mark, model=model, log=log, grpc_address=grpc_address, command=command, headers=headers)
        self._process = process

    @property
    def pid(self) -> int:
        """The pid of the server process."""
        return self._process.pid

    @property
    def crash(self) -> str | None:
        """How the server process crashed: `was ended by SIGABRT`; None: it did not."""
        code = self._process.poll()
        return describe_exit(code) if code is not None and -code in _CRASHES else None

    def _end(self) -> End | None:
        code = self._process.poll()
        return None if code is None else End.by(code)

    def _terminate(self) -> None:
        self._process.terminate()

    def _remove(self) -> None:
        self._process.kill()
        self._process.wait()
        end_processes(lambda mark: mark == self.mark)
        self.mark.remove_files()
        remove_python_envs()
