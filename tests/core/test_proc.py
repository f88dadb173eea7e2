from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tuner.core.proc import ProcessState, describe_exit, lives, oom_kills, read_state


@contextmanager
def zombie(code: str) -> Iterator[int]:
    """A process that has ended and was not collected."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code]) as process:
        deadline = time.monotonic() + 10
        while not (state := read_state(process.pid)) or not state.ended:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        yield process.pid


def state_of(pid: int) -> ProcessState:
    state = read_state(pid)
    assert state is not None
    return state


def test_this_process_lives() -> None:
    state = state_of(os.getpid())
    assert not state.ended
    assert lives(os.getpid(), state.started)
    assert not lives(os.getpid(), state.started + 1)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("", 0), ("import os; os._exit(7)", 7), ("import os; os.abort()", -signal.SIGABRT)],
)
def test_a_zombie_tells_how_it_ended(code: str, exit_code: int) -> None:
    with zombie(code) as pid:
        state = state_of(pid)
        assert state.exit_code == exit_code
        assert not lives(pid, state.started)


def test_a_process_that_was_collected_has_no_state() -> None:
    with zombie("") as pid:
        started = state_of(pid).started
    assert read_state(pid) is None
    assert not lives(pid, started)


def test_a_name_with_parentheses_and_spaces_does_not_mislead() -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b') Z 1 (x', 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not state_of(process.pid).ended
        process.kill()


def test_the_kernel_counts_what_it_kills_for_want_of_memory() -> None:
    assert (oom_kills() or 0) >= 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (7, "ended with exit code 7"),
        (-signal.SIGKILL, "was ended by SIGKILL"),
        (-40, "was ended by signal 40"),
    ],
)
def test_an_end_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
