"""The processes of Python instances that are not visible on this machine, as the engine reports them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from docker.errors import APIError
from docker.models.containers import Container

from tuner.servers.docker.engine import ENGINE_ERRORS
from tuner.servers.python_models import may_define
from tuner.servers.stubs import PROGRAM_NAMES

# In s: each look makes the engine run `ps` on the machine that is measured.
_LOOK_EVERY_S = 2.0
_JOIN_S = 5.0
_COLUMNS = "-eo pid,stat,args"


@dataclass(frozen=True)
class DistantStub:
    """A process of a Python instance that is not visible on this machine.

    Attributes:
        pid: Its pid on the engine's machine.
        model_file: The local path of the code that it runs; None if it had ended before it was found.
    """

    pid: int
    model_file: Path | None
    _states: Mapping[int, bool]

    @property
    def alive(self) -> bool:
        """Whether it was running at the last query of the engine."""
        return self._states.get(self.pid, False)

    @property
    def exit_code(self) -> int | None:
        """Always None: the engine does not report it."""
        return None

    @property
    def may_finalize(self) -> bool:
        """Whether its model might define `finalize`."""
        return self.model_file is not None and may_define(self.model_file, "finalize")


class DistantStubs:
    """Asks the engine for the stubs of a container, every 2 s.

    Args:
        container: A running container.
        here: Maps a path in the container to the local path.
    """

    def __init__(self, container: Container, here: Callable[[Path], Path]) -> None:
        self._container = container
        self._here = here
        self._states: dict[int, bool] = {}
        self._files: dict[int, Path | None] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> tuple[DistantStub, ...]:
        """The current stubs, including ended ones; their states are updated from here on."""
        self._ask()
        if self._thread is None:
            name = f"stubs {self._container.name}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()
        return tuple(DistantStub(pid, self._files.get(pid), self._states) for pid in sorted(self._states.copy()))

    def close(self) -> None:
        """Stop asking the engine."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_EVERY_S):
            self._ask()

    def _ask(self) -> None:
        try:
            rows = self._container.top(ps_args=_COLUMNS)["Processes"]
        except APIError:
            return  # The container has ended, or its machine has a different `ps`.
        except ENGINE_ERRORS:
            return  # The watch over the container reports that.
        processes = {int(pid): (state, command.split()) for pid, state, command in rows}
        stubs = {pid: (state, words) for pid, (state, words) in processes.items() if _is_stub(words)}
        for pid, (_, words) in stubs.items():
            if len(words) > 1 and pid not in self._files:
                self._files[pid] = self._here(Path(words[1]))
        for pid in self._states.keys() - stubs.keys():
            del self._states[pid]
        self._states.update({pid: not state.startswith("Z") for pid, (state, _) in stubs.items()})


def _is_stub(words: list[str]) -> bool:
    # `ps` shows the name of an ended process in brackets.
    return bool(words) and Path(words[0]).name.strip("[]") in PROGRAM_NAMES
