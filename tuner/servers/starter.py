"""Starts the process of a server, which is killed when this process ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTimeError
from functools import cache
from pathlib import Path

from tuner.core.errors import Cause, LaunchError
from tuner.core.interrupts import put_off
from tuner.servers import shim

# Starting takes ms, or longer on a very busy disk or machine.
_WITHIN_S = 30.0


def start_process(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    preface: str = "",
    cores: Collection[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that is killed when this process ends, or when the start is interrupted.

    It has its own session, so that Ctrl-C at the terminal does not reach it.

    Args:
        command: The program and its arguments.
        environment: Environment variables, in addition to those of this process.
        log: The file for its output.
        preface: Text at the beginning of the log.
        cores: The cores that it and its processes may use; empty: those of this process.

    Raises:
        LaunchError: the program did not start within 30 s.
        OSError: the program cannot be started.
    """
    through_shim = [
        sys.executable,
        "-I",
        "-S",
        shim.__file__,
        str(os.getpid()),
        ",".join(map(str, sorted(cores))),
        *command,
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    process: subprocess.Popen[bytes] | None = None
    with log.open("wb") as output:
        output.write(preface.encode())
        output.flush()
        try:
            # An interrupted `submit` would leave a thread that cannot be ended.
            with put_off():
                start = _starter(os.getpid()).submit(
                    subprocess.Popen[bytes],
                    through_shim,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                process = _result(start)
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
            raise
    return process


def _result(start: Future[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    try:
        return start.result(_WITHIN_S)
    except NotInTimeError:
        start.add_done_callback(lambda started: started.result().kill())
        raise LaunchError(f"Triton's process did not start within {_WITHIN_S:g} s", cause=Cause.HUNG) from None


@cache
def _starter(_pid: int) -> ThreadPoolExecutor:
    """The thread that starts the servers of a process.

    The kernel kills a server when the thread that started it ends, so this thread lives as long as the process. A
    forked process has its own thread.
    """
    return ThreadPoolExecutor(1, thread_name_prefix="tritontune-starter")
