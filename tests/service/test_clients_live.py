"""The commands with a real service, whose jobs are real processes on the fake Triton."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Running, start_tritontune, tritontune
from support.pages import ROOT

from tuner.client import Client
from tuner.client.local_service import local_services

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fake_on_path")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the service is started, and all commands are run."""
    shutil.copytree(ROOT / "examples/model_repository", tmp_path / "models")
    (tmp_path / "job.yaml").write_text("repository: models\nslo: {p99: 30s}\nbudget: 1s\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    # What a failed test has left running.
    for service in local_services():
        if service.data.is_relative_to(tmp_path):
            with Client(data=service.data) as client:
                for job in client.jobs(states=("queued", "starting", "running")):
                    client.cancel(job.id)
                    client.wait(job.id)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _start(port: int) -> Running:
    service = start_tritontune("serve", "--data", "data", "--listen", f"127.0.0.1:{port}")
    assert service.stdout is not None
    line = service.stdout.readline()
    assert line == f"tritontune serves data at http://127.0.0.1:{port}\n", line or service.communicate()
    return service


def test_a_killed_service_costs_those_who_wait_nothing(folder: Path) -> None:
    port = _free_port()
    first = _start(port)
    with start_tritontune("submit", "job.yaml", "--wait", "--json") as waiting:
        assert waiting.stderr is not None
        told = []
        for line in waiting.stderr:
            told.append(line)
            if line.startswith("tuning mlp"):
                break
        first.send_signal(signal.SIGKILL)
        first.wait()
        done = tritontune("jobs")
        assert done.returncode in {1, 2}, "no token goes to who may listen there now"
        with _start(port) as second:
            rest, result = waiting.stderr.read(), waiting.stdout.read() if waiting.stdout else ""
            assert waiting.wait() == 0, rest
            lines = [*told, *rest.splitlines(keepends=True)]
            assert [line for line in lines if line.startswith("job 1: ")] == [
                "job 1: queued\n",
                "job 1: starting\n",
                "job 1: running\n",
                "job 1: succeeded\n",
            ]
            assert json.loads(result)["attempt"] == 1, "the job went on"
            second.send_signal(signal.SIGTERM)
            second.communicate(timeout=60)
            assert second.returncode == 0
    assert [service for service in local_services() if service.data == folder / "data"] == []
