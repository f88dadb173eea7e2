"""A Triton that was started here, in whichever way: what all of these servers have in common."""

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
# Who presses Ctrl-C wants the terminal back.
_HURRIED_GRACE_S = 1.0
# A connection breaks a moment before whoever held its other end is known to be gone.
_NOTICE_S = 0.5
_LOOK_S = 0.01


@dataclass(frozen=True)
class End:
    """How a server, or a part of it, ended.

    Attributes:
        how: The end of a sentence that begins with what ended.
        killed: Whether that was by SIGKILL, which is also what the kernel sends when memory runs out.
        out_of_memory: Whether it is known to have run out of memory.
    """

    how: str
    killed: bool = False
    out_of_memory: bool = False

    @classmethod
    def by(cls, code: int | None, *, out_of_memory: bool = False) -> Self:
        """With an exit code, or the negative number of a signal; None: nobody knows."""
        how = "has ended" if code is None else describe_exit(code)
        return cls(how, killed=code == -signal.SIGKILL, out_of_memory=out_of_memory)


class TritonServer(ABC):
    """A server and all that it started. Leaving the context stops it.

    Args:
        mark: Whose it is, and its `--id`.
        model: That it is to load.
        log: The file in which its output is.
        grpc_address: `host:port`.
        command: The command line, for people.
        headers: Sent with every request: the server may answer nobody without.
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
        """The process of the server itself, as this machine numbers it."""

    @abstractmethod
    def _end(self) -> End | None:
        """How the server itself ended, or None while it runs. Takes < 1 ms."""

    @abstractmethod
    def _terminate(self) -> None:
        """Send it SIGTERM; harmless when it has ended."""

    @abstractmethod
    def _remove(self) -> None:
        """End it at once, with all that it started, and leave nothing of it behind."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it is reached."""
        return self._endpoint

    @property
    def command(self) -> str:
        """The command line (or its like) that started it."""
        return self._command

    def check(self) -> None:
        """Raise `ServerDiedError` when the server, or the process of one of its Python instances, is gone.

        Triton does not mind the latter: the model stays `ready`, each request for that instance fails after a second,
        and none is ever started in its place.
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
        """The processes of Python instances as they are now, ended ones included."""
        return stubs_of(self.pid)

    def mind_model(self) -> None:
        """Take note of the processes of Python instances as they are now; from here on `check` minds them, too."""
        self._stubs = self.find_stubs()

    def usage(self) -> ServerUsage | None:
        """What it takes of processors and memory, as far as its processes can be seen from here."""
        if self._usage is None:
            self._usage = ProcessUsage(self.pid, str(self.mark))
        return None if self._stopped else self._usage.read()

    def kernel_was_short_of_memory(self) -> bool | None:
        """Whether the kernel has killed anything for want of memory since the start; None where it does not say."""
        before, now = self._oom_kills, oom_kills()
        return None if before is None or now is None else now > before

    def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """Stop it and all that it started, for certain; again is harmless.

        A Python model that may define `finalize` is given `grace_s` to do so. All else is killed at once: it has
        nothing that the kernel does not take back, and Triton's own way down takes a second or more for each instance.
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
        """How the server itself ended: all processes of a container end with it, and it is the last to be heard of."""
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
        """What became of the server, where that says more than that a request failed."""
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
