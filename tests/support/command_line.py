"""Runs `tritontune` as a person would: in this process, which is quick, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from unittest import mock

import psutil

from tuner.cli.main import main

_TRITONTUNE = str(Path(sys.executable).with_name("tritontune"))


def tritontune(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in this process. What it prints is not that of a terminal."""
    words = ["tritontune", *map(str, arguments)]
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", words),
        _this_process_restored(),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        if cwd:
            os.chdir(cwd)
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int), code
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


@contextmanager
def _this_process_restored() -> Iterator[None]:
    """The current folder, and the signal handlers, which `main` sets for the rest of its process's life."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = Path.cwd()
    try:
        yield
    finally:
        os.chdir(folder)
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Running(subprocess.Popen[str]):
    """A command that runs, in a process group of its own, and no longer than the test that started it."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(
            [_TRITONTUNE, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        _running.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.end()
        super().__exit__(kind, error, trace)

    def end(self) -> None:
        """Kill it and all that it started, if it still runs, and leave nothing open that would warn of it later."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()


_running: list[Running] = []


def start_tritontune(*arguments: object) -> Running:
    """Start a command, which ends with the test at the latest."""
    return Running(*arguments)


def end_running() -> None:
    """End all that was started and still runs."""
    while _running:
        _running.pop().end()


def servers_of(repository: Path) -> list[psutil.Process]:
    """The servers and stubs that serve what was staged below a folder."""
    return [process for process in psutil.process_iter() if str(repository) in _command_line(process)]


def await_that(condition: Callable[[], bool], *, within_s: float = 120.0) -> None:
    """Wait for a condition, which must come true in time: on a machine that others keep busy, too."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def words_of(process: psutil.Process) -> list[str]:
    """The command line of a process; empty if it has ended, or is another user's."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def _command_line(process: psutil.Process) -> str:
    words = words_of(process)
    serves = any(Path(word).name.startswith(("tritonserver", "triton_python_backend_stub")) for word in words)
    return " ".join(words) if serves else ""
