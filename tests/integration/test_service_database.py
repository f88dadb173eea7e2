"""`tritontune serve` on a PostgreSQL that is stopped while a job runs, and that another service wants to use."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import urllib3
from support.command_line import Running, await_that, tritontune
from support.postgres import running_postgres

from tuner.client.client import Client
from tuner.client.resources import Submission
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

_ROUGH = {"max_concurrency": 1, "precision": "20%,50%", "slo": {"p50": "5s"}, "budget": "1h", "seed": 7}


@pytest.mark.usefixtures("fake_on_path")
def test_a_database_that_stops_during_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_repository: ModelRepositoryFactory
) -> None:
    """The job goes on, the service says what is wrong, and catches up. Another service may not use the database."""
    model_repository.add("slow", config=config_text(max_batch_size=16))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(model_repository.path.parent)
    job = {"repository": str(model_repository.path), "model": "slow", "trials": 1, "verify": False, **_ROUGH}
    with running_postgres() as server:
        arguments = ("--listen", "127.0.0.1:0", "--database", server.url)
        with Running("serve", "--data", tmp_path / "data", *arguments) as service:
            assert service.stdout is not None
            address = service.stdout.readline().rpartition(" ")[2].strip()
            token = (tmp_path / "data/admin.token").read_text().strip()

            second = tritontune("serve", "--data", tmp_path / "other", *arguments)
            assert second.returncode == 2
            assert f"in use by another service: process {service.pid} on " in second.stderr
            assert "s3cret" not in second.stderr

            def ready() -> int:
                return urllib3.request("GET", f"{address}/readyz", timeout=60, retries=False).status

            with Client(address, token, patience_s=120) as client:
                number = client.submit(Submission(job=job)).id
                await_that(lambda: client.job(number).state == "running")
                server.stop()
                began = time.monotonic()
                assert ready() == 503
                assert time.monotonic() - began < 60
                answer = urllib3.request(
                    "GET", f"{address}/api/v1/jobs", headers={"Authorization": f"Bearer {token}"}, retries=False
                )
                assert answer.status == 503
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert b"refused" in answer.data
                assert b"s3cret" not in answer.data
                events = tmp_path / f"data/jobs/{number}/events.jsonl"
                await_that(lambda: '"state":"succeeded"' in events.read_text())
                server.start()
                await_that(lambda: ready() == 200)
                await_that(lambda: client.job(number).state == "succeeded")
                assert client.job(number).progress.trials == 1
                assert [event.seq for event in client.events(number)][-1] == len(events.read_text().splitlines())
                assert client.submit(Submission(job={**job, "seed": 8})).id == number + 1
                client.cancel(number + 1)
            service.send_signal(signal.SIGTERM)
            _, log = service.communicate(timeout=60)
            assert service.returncode == 0
            assert "s3cret" not in log


def test_a_service_whose_database_was_taken_over_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a pause that was longer than its hold lasts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with Running("serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0") as service:
        assert service.stdout is not None
        service.stdout.readline()
        with closing(sqlite3.connect(tmp_path / "data/service.db")) as database, database:
            database.execute("UPDATE tritontune_holders SET holder = 'another one', lease = 'x', until_s = 1e12")
        _, log = service.communicate(timeout=120)
        assert service.returncode == 2
        assert "another service has taken over the database: another one; jobs that run go on" in log
