"""A Triton that runs as a process."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.errors import Cause, ServerDiedError
from tuner.servers.mark import Mark
from tuner.servers.proc import describe_exit, oom_kills
from tuner.servers.processes import end_processes
from tuner.servers.stubs import Stub, stubs_of
from tuner.servers.triton_log import last_words, read_log, tells_of_memory

_LOOK_S = 0.01


class ProcessServer:
    """A server and all that it started. Leaving the context stops it.

    Args:
        process: The server itself, the leader of a session of its own.
        mark: Which all its processes and files carry.
        model: That it is to load.
        log: The file to which it writes.
        grpc_address: `host:port`.
        command: The command line, for people.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], *, mark: Mark, model: str, log: Path, grpc_address: str, command: str
    ) -> None:
        self.mark = mark
        self.model = model
        self.log = log
        self._process = process
        self._grpc_address = grpc_address
        self._command = command
        self._stubs: tuple[Stub, ...] = ()
        self._oom_kills = oom_kills()
        self._stopped = False

    @property
    def pid(self) -> int:
        """The process of the server itself."""
        return self._process.pid

    @property
    def grpc_address(self) -> str:
        """`host:port` of the gRPC endpoint."""
        return self._grpc_address

    @property
    def command(self) -> str:
        """The command line, with the environment that it needs."""
        return self._command

    def check(self) -> None:
        """Raise `ServerDiedError` when the server, or the process of one of its Python instances, is gone.

        Triton does not mind the latter: the model stays `ready`, each request for that instance fails after a second,
        and none is ever started in its place.
        """
        if self._stopped:
            raise ServerDiedError("the server was stopped", cause=Cause.CRASHED)
        if (code := self._process.poll()) is not None:
            raise self._death("Triton", code)
        for stub in self._stubs:
            if not stub.alive:
                raise self._death(f"an instance of model {self.model!r}", stub.exit_code)

    def mind_stubs(self) -> None:
        """Take note of the processes of Python instances as they are now; from here on `check` minds them, too."""
        self._stubs = stubs_of(self.pid)

    def stop(self, *, grace_s: float = 5.0) -> None:
        """Stop it and all that it started, for certain; again is harmless.

        A Python model that may define `finalize` is given `grace_s` to do so. All else is killed at once: it has
        nothing that the kernel does not take back, and Triton's own way down takes a second or more for each instance.
        """
        if self._stopped:
            return
        try:
            if self._has_finalizers():
                self._let_finalize(grace_s)
        finally:
            self._process.kill()
            self._process.wait()
            end_processes(lambda mark: mark == self.mark)
            self.mark.remove_files()
            self._stopped = True

    def _has_finalizers(self) -> bool:
        # With one instance dead, Triton's way down hangs.
        alive = self._process.poll() is None and all(stub.alive for stub in self._stubs)
        return alive and any(stub.may_finalize for stub in self._stubs)

    def _let_finalize(self, grace_s: float) -> None:
        """Have Triton unload the model until the stubs are gone. It would itself look for that once a second."""
        deadline = time.monotonic() + grace_s
        self._process.terminate()
        while self._process.poll() is None and any(stub.alive for stub in self._stubs):
            if time.monotonic() > deadline:
                return
            time.sleep(_LOOK_S)

    def _death(self, what: str, code: int | None) -> ServerDiedError:
        text = read_log(self.log)
        short_of_memory = tells_of_memory(text) or (code == -signal.SIGKILL and self._kernel_was_short_of_memory())
        how = describe_exit(code) if code is not None else "has ended"
        return ServerDiedError(
            f"{what} {how}{' for want of memory' if short_of_memory else ''}",
            cause=Cause.OUT_OF_MEMORY if short_of_memory else Cause.CRASHED,
            last_words=last_words(text),
        )

    def _kernel_was_short_of_memory(self) -> bool:
        before, now = self._oom_kills, oom_kills()
        return before is None or now is None or now > before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
