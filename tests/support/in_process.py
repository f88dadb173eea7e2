"""Runs `tritontune` within the test's own process: the same `main`, some hundred times as quick."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tuner.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class InProcess:
    """Runs commands, one after the other."""

    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Done:
        self.capture.readouterr()
        with _signals_restored(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["tritontune", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
        code, told = ended.value.code, self.capture.readouterr()
        assert isinstance(code, int), code
        return Done(code, told.out, told.err)

    def refused(self, *arguments: object) -> str:
        """Run a command that is asked wrongly. Returns the one line that says so."""
        done = self(*arguments)
        lines = done.stderr.splitlines()
        assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), done
        assert lines[0].startswith("tritontune: "), done
        return lines[0].removeprefix("tritontune: ")


@contextmanager
def _signals_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
