from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.command_line import await_that

from tuner.servers.starter import start_process

_SLEEP = ["/bin/sleep", "100"]


def _python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, check=False, text=True, timeout=30
    )


@pytest.mark.slow
def test_a_program_dies_with_who_started_it(tmp_path: Path) -> None:
    script = """
import pathlib, sys
from tuner.servers.starter import start_process
print(start_process(["/bin/sleep", "100"], {}, pathlib.Path(sys.argv[1])).pid)
"""
    started = _python(script, str(tmp_path / "log"))
    await_that(lambda: not psutil.pid_exists(int(started.stdout)))


def test_its_log_begins_with_the_preface(tmp_path: Path) -> None:
    program = ["/bin/sh", "-c", "echo to $WHOM"]
    with start_process(program, {"WHOM": "you"}, tmp_path / "new" / "log", "from me\n") as process:
        assert process.wait(10) == 0
    assert (tmp_path / "new" / "log").read_text() == "from me\nto you\n"


def test_an_interruption_while_it_starts_ends_it_and_leaves_nothing_that_is_waited_for(tmp_path: Path) -> None:
    # The signal comes in the thread that starts the program, while the main thread waits for that thread to be there.
    script = """
import os, pathlib, signal, subprocess, sys
from tuner.servers.starter import start_process
initialise = subprocess.Popen.__init__
def interrupted(self, *given, **more):
    os.kill(os.getpid(), signal.SIGINT)
    initialise(self, *given, **more)
    print(self.pid, flush=True)
subprocess.Popen.__init__ = interrupted
try:
    start_process(["/bin/sleep", "100"], {}, pathlib.Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(130)
"""
    done = _python(script, str(tmp_path / "log"))
    assert done.returncode == 130, done.stderr
    assert not psutil.pid_exists(int(done.stdout))


def test_a_fork_can_start_programs_too(tmp_path: Path) -> None:
    script = """
import os, pathlib, sys
from tuner.servers.starter import start_process
log = pathlib.Path(sys.argv[1])
start_process(["/bin/true"], {}, log).wait(10)
if os.fork():
    os.wait()
else:
    print(start_process(["/bin/true"], {}, log).wait(10), flush=True)
    os._exit(0)
"""
    assert _python(script, str(tmp_path / "log")).stdout == "0\n"


def test_a_program_that_is_not_there_ends_with_a_line_in_the_log(tmp_path: Path) -> None:
    with start_process([str(tmp_path / "nothing")], {}, tmp_path / "log") as process:
        assert process.wait(10) != 0
    assert "No such file" in (tmp_path / "log").read_text()


def test_one_that_cannot_be_started_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError):
        start_process(_SLEEP, {}, tmp_path / "log")
    monkeypatch.undo()
    with start_process(_SLEEP, {}, tmp_path / "log") as process:
        assert process.poll() is None
        process.kill()


def test_a_program_is_pinned_to_other_cores_than_its_starter(tmp_path: Path) -> None:
    # As the load generator, which starts the server, has cores of its own.
    script = """
import os, pathlib, sys
from tuner.servers.starter import start_process
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, cores[:1])
ask = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
log = pathlib.Path(sys.argv[1])
start_process(ask, {}, log, "", cores[-1:]).wait(10)
start_process(ask, {}, log.with_name("own")).wait(10)
print(cores[-1:], cores[:1], sep="\\n")
"""
    expected = _python(script, str(tmp_path / "log")).stdout
    assert (tmp_path / "log").read_text() + (tmp_path / "own").read_text() == expected
