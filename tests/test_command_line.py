"""What a test starts ends with it."""

from __future__ import annotations

import os

import pytest
from support.command_line import Running, end_running, start_tritontune


def test_a_command_that_a_test_left_running_is_ended() -> None:
    left = start_tritontune("--help")
    end_running()
    assert left.returncode is not None
    assert left.stdout is not None
    assert left.stdout.closed


def test_a_test_that_fails_does_not_wait_for_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.command_line._TRITONTUNE", "/bin/sleep")

    def fails() -> None:
        with Running(1000) as running:
            pid.append(running.pid)
            raise AssertionError

    pid: list[int] = []
    with pytest.raises(AssertionError):
        fails()
    with pytest.raises(ProcessLookupError):
        os.kill(pid[0], 0)
