from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from support.command_line import await_that
from support.services import ON_TRITON, Services

from tuner.servers import usage as module
from tuner.servers.usage import ProcessUsage, ServerUsage
from tuner.testing.repositories import config_text

# A parent that works and holds memory, and a child that does the same; both tell when they have begun.
_FAMILY = """
import subprocess, sys, time
held = bytearray(b"x") * (64 << 20)
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child", ""], stdout=subprocess.PIPE)
    child.stdout.readline()
print("ready", flush=True)
while True:
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass
    time.sleep(0.02)
"""


@pytest.fixture
def family() -> Iterator[int]:
    """The pid of a parent with one child."""
    with subprocess.Popen(
        [sys.executable, "-c", _FAMILY, "parent", _FAMILY, "--id=mark-7"], stdout=subprocess.PIPE
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"ready\n"
            yield parent.pid
        finally:
            for child in psutil.Process(parent.pid).children(recursive=True):
                child.kill()
            parent.kill()


def _read(usage: ProcessUsage) -> ServerUsage:
    read = usage.read()
    assert read is not None
    return read


def test_a_process_and_its_children_count(family: int) -> None:
    usage = ProcessUsage(family, "mark-7")
    first, began = _read(usage), time.monotonic()
    # Each holds 64 MiB of its own, and what an interpreter takes.
    assert 128 << 20 < first.memory_bytes < 200 << 20
    while _read(usage).cpu_s - first.cpu_s < 0.3:
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    everyone = [psutil.Process(family), *psutil.Process(family).children()]

    def known_s() -> float:
        return sum(each.cpu_times().user + each.cpu_times().system for each in everyone)

    # They work on meanwhile.
    before_s, read_s, after_s = known_s(), _read(usage).cpu_s, known_s()
    assert before_s - 0.001 <= read_s <= after_s + 0.001


def test_shared_memory_counts_once(family: int) -> None:
    everyone = [psutil.Process(family), *psutil.Process(family).children()]
    private = sum(each.memory_full_info().pss for each in everyone)
    assert _read(ProcessUsage(family, "mark-7")).memory_bytes == pytest.approx(private, rel=0.1)


def test_another_process_of_that_number_is_not_ours(family: int) -> None:
    assert ProcessUsage(family, "mark-8").read() is None
    assert ProcessUsage(0, "mark-7").read() is None
    assert ProcessUsage(2**22 + 1, "mark-7").read() is None


def test_children_that_come_and_go_are_noticed(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN_S", 0.0)
    usage = ProcessUsage(family, "mark-7")
    before = _read(usage)
    psutil.Process(family).children()[0].kill()
    deadline = time.monotonic() + 60
    while _read(usage).memory_bytes > before.memory_bytes - (50 << 20):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@ON_TRITON
def test_a_triton_with_its_stubs(services: Services) -> None:
    server = services("echo").ports.server

    def read() -> ServerUsage:
        usage = server.usage()
        assert usage is not None
        return usage

    before = read()
    services.load("identity", config_text(instances=3))
    await_that(lambda: read().memory_bytes - before.memory_bytes > 3 * (5 << 20))
    after = read()
    # A stub is an interpreter with numpy.
    assert after.memory_bytes - before.memory_bytes < 3 * (80 << 20)
    assert 0.1 < before.cpu_s < after.cpu_s
    assert before.memory_bytes > 30 << 20


def test_a_server_that_is_stopped_takes_nothing(services: Services) -> None:
    server = services("doomed").ports.server
    assert server.usage() is not None
    server.stop(grace_s=0.5)
    assert server.usage() is None
