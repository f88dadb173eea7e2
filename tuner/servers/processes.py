"""Finds and ends all processes of a server, even if they left its session or changed their environment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil

from tuner.core.errors import Cause, ServerHungError
from tuner.core.mark import VARIABLE, Mark
from tuner.core.proc import read_state

# In s: a killed process ends within ms, but longer with much GPU memory.
_DEADLINE_S = 10.0
_LOOK_S = 0.002


def marked_processes() -> Iterator[tuple[Mark, psutil.Process]]:
    """Every running process of this user that carries a mark."""
    for process in psutil.process_iter():
        try:
            mark = Mark.of(process.environ().get(VARIABLE, ""))
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue
        if mark:
            yield mark, process


def end_processes(chosen: Callable[[Mark], bool]) -> frozenset[Mark]:
    """Kill every process with a chosen mark, and all processes of their sessions; wait until all have ended.

    Each server has its own session. A process that overwrites its environment stays in the session. A process that
    leaves the session keeps its environment.

    Returns:
        The marks that were found.

    Raises:
        ServerHungError: a process does not end within 10 s, probably because it waits for a device.
    """
    marks: set[Mark] = set()
    deadline = time.monotonic() + _DEADLINE_S
    while ours := [(mark, process) for mark, process in marked_processes() if chosen(mark)]:
        marks.update(mark for mark, _ in ours)
        victims = _with_their_sessions({process for _, process in ours})
        for process in victims:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _await_end(victims, deadline)
    return frozenset(marks)


def _await_end(victims: list[psutil.Process], deadline: float) -> None:
    # psutil.wait_procs would wait until the parent reaps a zombie, and an idle init may never do so.
    while left := [process.pid for process in victims if _runs(process)]:
        if time.monotonic() > deadline:
            raise ServerHungError(f"SIGKILL does not end process {left[0]}", cause=Cause.HUNG)
        time.sleep(_LOOK_S)


def _runs(process: psutil.Process) -> bool:
    state = read_state(process.pid)
    return state is not None and not state.ended and process.is_running()


def _with_their_sessions(processes: set[psutil.Process]) -> list[psutil.Process]:
    sessions = {_session(process.pid) for process in processes} - {None, os.getsid(0)}
    return [process for process in psutil.process_iter() if process in processes or _session(process.pid) in sessions]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
