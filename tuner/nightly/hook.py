"""Runs the user's command on an improvement."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tuner.core.errors import TuningError
from tuner.core.quantities import format_duration


def run_hook(command: Sequence[str], *, stdin: str, variables: Mapping[str, str], within_s: float, log: Path) -> None:
    """Run a command, and kill all remaining processes of it.

    Args:
        command: The program and its arguments; no shell is used.
        stdin: The text for its standard input.
        variables: Environment variables added to our own.
        within_s: Deadline in seconds, after which it is killed.
        log: The file for its output.

    Raises:
        TuningError: the command cannot be started, fails, or takes too long.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(  # noqa: S603 (the user's own)
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                start_new_session=True,
            )
        except OSError as error:
            raise TuningError(f"command: {command[0]}: {error.strerror}") from None
        try:
            process.communicate(stdin.encode(), timeout=within_s)
        except subprocess.TimeoutExpired:
            raise TuningError(
                f"command: {command[0]} took longer than {format_duration(within_s)} and was killed; see {log}"
            ) from None
        finally:
            _kill(process)
    if process.returncode:
        raise TuningError(f"command: {command[0]} exited with status {process.returncode}{_last_line(log)}; see {log}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of the command."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        with suppress(OSError):
            process.stdin.close()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last[:200]}" if last else ""
