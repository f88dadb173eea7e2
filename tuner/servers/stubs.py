"""Stubs: the processes in which Triton runs Python models, one for each instance."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from tuner.core.proc import lives, read_state
from tuner.servers.python_models import may_define

_PROGRAM = "triton_python_backend_stub"
PROGRAM_NAMES = {_PROGRAM, _PROGRAM[:15]}
"""The names of a stub process; the kernel keeps 15 characters of a zombie's name."""

_LOOK_S = 0.01


class AnyStub(Protocol):
    """The interface of a stub, on this machine or reported by a Docker engine."""

    @property
    def pid(self) -> int:
        """Its pid."""

    @property
    def alive(self) -> bool:
        """Whether it still runs. Takes < 1 ms."""

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None: it runs, or unknown."""

    @property
    def may_finalize(self) -> bool:
        """Whether its model may define `finalize`."""


@dataclass(frozen=True)
class Stub:
    """A stub on this machine.

    Attributes:
        pid: Its pid.
        started: Its start time, in clock ticks since boot.
        model_file: The path of its code; None if it had ended before it was found.
    """

    pid: int
    started: int
    model_file: Path | None

    @property
    def alive(self) -> bool:
        """Whether it still runs. Takes some 20 us."""
        return lives(self.pid, self.started)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None: it runs, or unknown."""
        state = read_state(self.pid)
        return state.exit_code if state and state.started == self.started and state.ended else None

    @property
    def may_finalize(self) -> bool:
        """Whether its model may define `finalize`."""
        return self.model_file is not None and may_define(self.model_file, "finalize")


def stubs_of(server_pid: int) -> tuple[Stub, ...]:
    """The current stubs of a server, including ended ones, which Triton does not reap. Takes some ms."""
    try:
        children = psutil.Process(server_pid).children()
    except psutil.NoSuchProcess:
        return ()
    stubs = []
    for child in children:
        try:
            arguments = child.cmdline() if child.name() in PROGRAM_NAMES else None
        except psutil.ZombieProcess:
            arguments = []
        except psutil.NoSuchProcess:
            continue
        state = read_state(child.pid)
        if arguments is not None and state:
            stubs.append(Stub(child.pid, state.started, Path(arguments[1]) if len(arguments) > 1 else None))
    return tuple(stubs)


def want_to_finalize(stubs: Sequence[AnyStub]) -> bool:
    """Whether Triton should shut down regularly: a model may define `finalize`, and no stub has died.

    Triton's shutdown hangs with a dead stub.
    """
    return all(stub.alive for stub in stubs) and any(stub.may_finalize for stub in stubs)


def await_end(stubs: Sequence[AnyStub], *, deadline: float, server_ended: Callable[[], bool]) -> None:
    """Return when all stubs or the server have ended, or at the deadline (`time.monotonic`).

    Triton itself checks only once a second whether its models are unloaded.
    """
    while any(stub.alive for stub in stubs) and not server_ended() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
