"""The base class of servers that tritontune starts itself, as a process or in Docker."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.core.errors import Cause, ServerDiedError, ServerError
from tuner.core.mark import Mark
from tuner.core.proc import describe_exit, oom_kills
from tuner.core.redaction import clean_file
from tuner.options.endpoint import Endpoint, Header
from tuner.servers.stubs import AnyStub, await_end, stubs_of, want_to_finalize
from tuner.servers.triton_log import last_words, read_log, tells_of_memory
from tuner.servers.usage import ProcessUsage, ServerUsage

_GRACE_S = 5.0
# After Ctrl-C, in s.
_HURRIED_GRACE_S = 1.0
# In s: a connection breaks slightly before the end of the process is visible.
_NOTICE_S = 0.5
_LOOK_S = 0.01


@dataclass(frozen=True)
class End:
    """How a server, or a part of it, ended.

    Attributes:
        how: How it ended, as the predicate of a sentence: `was ended by SIGKILL`.
        killed: Whether SIGKILL ended it; the kernel sends SIGKILL when memory runs out.
        out_of_memory: Whether memory is known to have run out.
    """

    how: str
    killed: bool = False
    out_of_memory: bool = False

    @classmethod
    def by(cls, code: int | None, *, out_of_memory: bool = False) -> Self:
        """The end of a process by its exit code or the negative number of a signal; None: unknown."""
        how = "has ended" if code is None else describe_exit(code)
        return cls(how, killed=code == -signal.SIGKILL, out_of_memory=out_of_memory)


class TritonServer(ABC):
    """A server and all its processes. Leaving the context stops it.

    Args:
        mark: The server's mark, which is also its `--id`.
        model: The name of the model that it loads.
        log: The file with its output.
        grpc_address: Its gRPC address, `host:port`.
        command: The command line, for the user.
        headers: Headers sent with every request; the server may require them.
    """

    def __init__(
        self, *, mark: Mark, model: str, log: Path, grpc_address: str, command: str, headers: tuple[Header, ...] = ()
    ) -> None:
        self.mark = mark
        self.model = model
        self.log = log
        self._endpoint = Endpoint(grpc_address, headers=headers)
        self._command = command
        self._stubs: tuple[AnyStub, ...] = ()
        self._oom_kills = oom_kills()
        self._stopped = False
        self._usage: ProcessUsage | None = None

    @property
    @abstractmethod
    def pid(self) -> int:
        """The pid of the server process on this machine."""

    @abstractmethod
    def _end(self) -> End | None:
        """How the server process ended; None while it runs. Takes < 1 ms."""

    @abstractmethod
    def _terminate(self) -> None:
        """Send SIGTERM; no error if the process has ended."""

    @abstractmethod
    def _remove(self) -> None:
        """End the server and all its processes at once, and remove everything that belongs to it."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint of the server."""
        return self._endpoint

    @property
    def command(self) -> str:
        """The command line (or equivalent) that started it."""
        return self._command

    def check(self) -> None:
        """Raise `ServerDiedError` if the server, or the process of one of its Python instances, is gone.

        Triton ignores a dead instance: the model stays `ready`, each request for the instance fails after a second, and
        the instance is never restarted.
        """
        if self._stopped:
            raise ServerDiedError("the server was stopped", cause=Cause.CRASHED)
        if end := self._end():
            raise self._death("Triton", end)
        for stub in self._stubs:
            if not stub.alive:
                if end := self._end_soon():
                    raise self._death("Triton", end)
                raise self._death(f"an instance of model {self.model!r}", End.by(stub.exit_code))

    def find_stubs(self) -> tuple[AnyStub, ...]:
        """The current processes of Python instances, including ended ones."""
        return stubs_of(self.pid)

    def mind_model(self) -> None:
        """Record the current processes of Python instances; from now on `check` also checks them."""
        self._stubs = self.find_stubs()

    def usage(self) -> ServerUsage | None:
        """CPU and memory usage of its processes; None: they are not visible here."""
        if self._usage is None:
            self._usage = ProcessUsage(self.pid, str(self.mark))
        return None if self._stopped else self._usage.read()

    def kernel_was_short_of_memory(self) -> bool | None:
        """Whether the kernel killed processes because memory ran out since the start; None: unknown."""
        before, now = self._oom_kills, oom_kills()
        return None if before is None or now is None else now > before

    def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Stop the server and all its processes; may be repeated.

        A Python model that may define `finalize` gets `grace_s` seconds for it. Everything else is killed at once: the
        kernel frees its resources, and Triton's own shutdown takes a second or more for each instance.
        """
        if self._stopped:
            return
        try:
            if self._end() is None and want_to_finalize(self._stubs):
                deadline = time.monotonic() + grace_s
                self._terminate()
                await_end(self._stubs, deadline=deadline, server_ended=lambda: self._end() is not None)
        finally:
            self._remove()
            self._stopped = True
            clean_file(self.log)

    def _end_soon(self) -> End | None:
        """How the server ended, if it does within 0.5 s; in a container, its stubs end before it does."""
        deadline = time.monotonic() + _NOTICE_S
        while not (end := self._end()) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return end

    def _death(self, what: str, end: End) -> ServerDiedError:
        text = read_log(self.log)
        perhaps = end.killed and self.kernel_was_short_of_memory() is not False
        out_of_memory = end.out_of_memory or perhaps or tells_of_memory(text)
        return ServerDiedError(
            f"{what} {end.how}{' (out of memory)' if out_of_memory else ''}",
            cause=Cause.OUT_OF_MEMORY if out_of_memory else Cause.CRASHED,
            last_words=last_words(text),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hurried = kind is not None and issubclass(kind, KeyboardInterrupt)
        cause = self._cause_of(error) if isinstance(error, ServerError) else None
        self.stop(grace_s=_HURRIED_GRACE_S if hurried else _GRACE_S)
        if cause:
            raise cause from error

    def _cause_of(self, error: ServerError) -> ServerError | None:
        """The error of a dead server if its death explains a failed request; else None."""
        if isinstance(error, ServerDiedError):
            return None
        deadline = time.monotonic() + _NOTICE_S
        while error.cause is Cause.CRASHED:
            try:
                self.check()
            except ServerDiedError as death:
                return death
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S)
        return None
