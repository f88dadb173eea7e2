"""The error boundary around all commands: an unexpected error becomes one line and a log file."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import click

from tuner.core.errors import TritontuneError, UnexpectedError, shortened

LOG = "error.log"
"""The name of the log in a run folder."""

# Options whose values may be secret.
_SECRET = ("--header", "-H", "--env", "--request-parameter")


@contextmanager
def boundary(folder: Path | None = None) -> Iterator[None]:
    """Pass expected errors on; convert others to an `UnexpectedError`, and write a log.

    Args:
        folder: The folder for `error.log`. If it does not exist or its disk is full, the log is a temporary file.

    Raises:
        UnexpectedError: an unexpected error; its message is one line that names the log.
    """
    try:
        yield
    except (TritontuneError, click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        log = write_log(error, folder)
        where = f"the log is {log}" if log else "no log could be written"
        raise UnexpectedError(f"unexpected {in_one_line(error)}; {where}") from error


def in_one_line(error: BaseException) -> str:
    """The root cause in one line: `OSError: No space left on device: 'run/study.db'`."""
    from tuner.core.redaction import without_secrets  # noqa: PLC0415 (only what fails needs it)

    while error.__cause__ is not None:
        error = error.__cause__
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = error.strerror + (f": {str(error.filename)!r}" if error.filename is not None else "")
    return shortened(without_secrets(f"{type(error).__name__}: {message}" if message else type(error).__name__))


def write_log(error: BaseException, folder: Path | None) -> Path | None:
    """Write an error log, without secrets.

    Args:
        error: The error, with its traceback.
        folder: The folder for the log; a temporary file is used if it cannot be written to.

    Returns:
        The path of the log; None: no log could be written.
    """
    try:
        text = _text(error)
        if folder is not None and folder.is_dir():
            try:
                (folder / LOG).write_text(text, encoding="utf-8", errors="backslashreplace")
            except OSError:  # such as a full disk, which may be the error itself
                (folder / LOG).unlink(missing_ok=True)
            else:
                return folder / LOG
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="tritontune-error-", suffix=".log", delete=False
        ) as file:
            file.write(text)
            return Path(file.name)
    except Exception:  # noqa: BLE001 (the error itself must still be reported)
        return None


def _text(error: BaseException) -> str:
    from tuner.core.redaction import without_secrets  # noqa: PLC0415 (only what fails needs it)
    from tuner.core.versions import system, versions  # noqa: PLC0415 (the same)

    lines = [
        time.strftime("%Y-%m-%d %H:%M:%S %z"),
        f"command: {command_without_secrets(sys.argv[1:])}",
        f"folder: {Path.cwd()}",
        f"Python: {sys.version.replace(chr(10), ' ')} ({sys.executable})",
        f"tritontune: {version('tritontune')}",
        f"packages: {', '.join(f'{name} {number}' for name, number in versions().items())}",
        f"system: {system()}",
    ]
    trace = "".join(traceback.format_exception(error))
    return without_secrets("\n".join(lines) + "\n\n" + trace)


def command_without_secrets(words: Sequence[str]) -> str:
    """A command line of tritontune, with possible secrets replaced by stars."""
    from tuner.core.redaction import HIDDEN, argument_without_secrets  # noqa: PLC0415 (only what fails needs it)

    parts, hide = ["tritontune"], False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide:
            parts.append(HIDDEN)
        elif equals and name in _SECRET:
            parts.append(f"{name}={HIDDEN}")
        elif word.startswith("-H") and word != "-H":
            parts.append(f"-H{HIDDEN}")
        else:
            parts.append(argument_without_secrets(word))
        hide = not hide and word in _SECRET
    return shlex.join(parts)
