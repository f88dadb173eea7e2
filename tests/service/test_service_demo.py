"""`make service-demo`, on the fake Triton."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.command_line import await_that
from support.pages import ROOT

_SCRIPT = ROOT / "examples/service_demo.py"


class _Demo:
    """The demo with a folder of its own for temporary files."""

    def __init__(self, folder: Path, path: str, budget: str) -> None:
        self.folder = folder
        self.printed = folder.parent / "printed"
        environment = {**os.environ, "PATH": path, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
        with self.printed.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, _SCRIPT, "--budget", budget],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self.printed.read_text("utf-8")

    def processes(self) -> list[psutil.Process]:
        """All processes that know its folder: the service, its jobs, and their servers."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(self.folder):
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess):
                continue
        return found


@pytest.fixture
def folder() -> Iterator[Path]:
    # A short path: sockets of load workers lie below it.
    with tempfile.TemporaryDirectory(prefix="demo-") as parent:
        folder = Path(parent) / "tmp"
        folder.mkdir()
        yield folder


@pytest.mark.slow
def test_it_ends_with_the_front_and_leaves_nothing(folder: Path, fake_path: str) -> None:
    demo = _Demo(folder, fake_path, "1s")
    # On a busy machine, no candidate may hold the SLO.
    assert demo.process.wait(120) in {0, 3}, demo.text
    assert "job 1: queued\n" in demo.text
    assert re.search(r"^job 1: succeeded", demo.text, re.MULTILINE)
    assert re.search(r"^front \(SLO p99 <= 100 ms\):\n [ *] +\S+ inferences/s +p99 ", demo.text, re.MULTILINE)
    assert re.search(r"^dashboard: http://127.0.0.1:\d+/jobs/1$", demo.text, re.MULTILINE)
    assert "  tritontune serve\n  tritontune submit job.yaml --wait" in demo.text
    # The process of a job whose end is told may take a moment to end itself.
    await_that(lambda: demo.processes() == [])
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(folder: Path, fake_path: str) -> None:
    demo = _Demo(folder, fake_path, "10m")
    await_that(lambda: "tuning mlp" in demo.text)
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(120) == 130, demo.text
    assert demo.text.endswith("interrupted: the job and the service have ended\n")
    await_that(lambda: demo.processes() == [])
    assert list(folder.iterdir()) == []
