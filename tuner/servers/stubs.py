"""The processes in which Triton runs Python models, one for each instance."""

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
"""What such a process is called: of a zombie, the kernel keeps 15 characters and nothing else."""

_LOOK_S = 0.01


class AnyStub(Protocol):
    """One such process, however it is seen."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def alive(self) -> bool:
        """Whether it still runs. Takes < 1 ms."""

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None when it runs, or nobody knows."""

    @property
    def may_finalize(self) -> bool:
        """Whether its model might define `finalize`."""


@dataclass(frozen=True)
class Stub:
    """One that this machine sees.

    Attributes:
        started: When, in ticks since boot.
        model_file: The code that it runs; None when it had ended before it was found.
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
        """How it ended, negative for a signal; None when it runs, or nobody knows any more."""
        state = read_state(self.pid)
        return state.exit_code if state and state.started == self.started and state.ended else None

    @property
    def may_finalize(self) -> bool:
        """Whether its model might define `finalize`."""
        return self.model_file is not None and may_define(self.model_file, "finalize")


def stubs_of(server_pid: int) -> tuple[Stub, ...]:
    """The stubs that a server has now, ended ones included: it does not collect them. Takes some ms."""
    try:
        children = psutil.Process(server_pid).children()
    except psutil.NoSuchProcess:
        return ()
    found = []
    for child in children:
        try:
            arguments = child.cmdline() if child.name() in PROGRAM_NAMES else None
        except psutil.ZombieProcess:
            arguments = []
        except psutil.NoSuchProcess:
            continue
        state = read_state(child.pid)
        if arguments is not None and state:
            found.append(Stub(child.pid, state.started, Path(arguments[1]) if len(arguments) > 1 else None))
    return tuple(found)


def want_to_finalize(stubs: Sequence[AnyStub]) -> bool:
    """Whether Triton should take its models down: one of them may have something to do then, and none has crashed.

    With one stub dead, Triton's way down hangs.
    """
    return all(stub.alive for stub in stubs) and any(stub.may_finalize for stub in stubs)


def await_end(stubs: Sequence[AnyStub], *, deadline: float, server_ended: Callable[[], bool]) -> None:
    """Return when all stubs or the server have ended, or at the deadline (`time.monotonic`).

    Triton itself looks only once a second whether its models are down.
    """
    while any(stub.alive for stub in stubs) and not server_ended() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
