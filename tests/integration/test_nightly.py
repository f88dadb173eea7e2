"""`tritontune nightly` on a real Triton: night after night, killed ones and slower models included."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Running, await_that, servers_of, start_tritontune, tritontune
from support.nights import jobs_file
from support.repositories import ModelRepositoryFactory, config_text

from tuner.models.config import ModelConfig

pytestmark = [pytest.mark.triton, pytest.mark.timeout(500)]

_JOB = {
    # Far above what the model takes: a machine that is not alone stalls for tenths of a second now and then.
    "slo": {"p99": "1s"},
    "budget": "30s",
    "max_concurrency": 8,
    "precision": "10%,30%",
    "verify": False,
    "seed": 7,
}


@dataclass
class Nights:
    """One repository, and the nights that it has seen."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "model_repository/slow/config.pbtxt"

    @property
    def model(self) -> Path:
        return self.folder / "model_repository/slow/1/model.py"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs.yaml"

    def run(self) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        done = tritontune("nightly", self.jobs, "--json")
        assert done.stdout, done.stderr
        return done, json.loads(done.stdout)

    def start(self) -> Running:
        """One that has a server running."""
        process = start_tritontune("nightly", self.jobs, "--json")
        await_that(lambda: bool(servers_of(self.folder / "work")))
        return process


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    repository = tmp_path / "model_repository"
    repository.mkdir()
    ModelRepositoryFactory(repository).add("slow", config=config_text(max_batch_size=16, more="# mine", sleep_ms=5))
    # Two candidates in all, so that a night has little to launch.
    space = tmp_path / "space.yaml"
    space.write_text("schema: 1\nparameters:\n  dynamic_batching: {ladder: [off, on]}\n")
    job = {**_JOB, "repository": str(repository), "action": "apply", "space": str(space)}
    settings = {
        "work": str(tmp_path / "work"),
        "window": "150s",
        "prometheus": str(tmp_path / "nightly.prom"),
        # Nobody is there, which is to change nothing.
        "notify": [{"webhook": "http://127.0.0.1:9/s3cret"}, {"file": str(tmp_path / "told.jsonl")}],
    }
    jobs_file(tmp_path / "jobs.yaml", job, **settings)
    return Nights(tmp_path)


def test_night_after_night(nights: Nights) -> None:
    before = nights.config.read_text()

    # The first is killed in the middle of a trial. It leaves the config as it was, and the next night starts clean.
    killed = nights.start()
    killed.kill()
    killed.communicate()
    assert nights.config.read_text() == before

    done, report = nights.run()
    assert done.returncode == 10, done.stderr
    assert "removed 1 server that a killed run had left behind" in done.stderr or not servers_of(nights.folder)
    (job,) = report["jobs"]
    assert (job["outcome"], job["regression"]) == ("improved", False)
    assert job["gain"]["low"] > 1.03
    assert list(nights.folder.glob("work/nights/*/model_repository/slow/report.html"))
    applied = nights.config.read_text()
    assert ModelConfig.read(nights.config).holds("dynamic_batching")
    assert "# mine" in applied
    (backup,) = nights.config.parent.glob("config.pbtxt.bak-*")
    assert backup.read_text() == before
    assert any("127.0.0.1:9/... cannot be reached" in note for note in report["notes"])
    assert "s3cret" not in done.stdout + done.stderr

    # The second has nothing better to find.
    done, report = nights.run()
    assert done.returncode == 0, done.stderr
    assert nights.config.read_text() == applied
    (job,) = report["jobs"]
    assert "against 1 earlier night" in job["drift"]
    assert "count here" in done.stderr  # the trials of the night before

    # A model that got slower is told, though no other config is better.
    code = nights.model.read_text()
    nights.model.write_text(code.replace("/ 1e3)", "* 2 / 1e3)"))
    done, report = nights.run()
    (job,) = report["jobs"]
    assert "the model's files are others than then" in job["drift"]
    # Beside other work on this machine, it is rightly not said of the model.
    slower = not job["drift"].startswith("inconclusive: machine busy")
    assert (done.returncode, job["regression"]) == ((20, True) if slower else (0, False)), done.stderr
    assert not slower or job["drift"].startswith("it got slower: ")
    assert 'tritontune_nightly_regression{model="slow"' in (nights.folder / "nightly.prom").read_text()

    told = [json.loads(line)["outcome"] for line in (nights.folder / "told.jsonl").read_text().splitlines()]
    last = "regression" if slower else "kept"
    assert told == ["improved", "kept", last]
    shown = tritontune("history", "--history", nights.folder / "work/history.db")
    assert re.search(rf"improved .*\n.* kept .*\n.* {last} ", shown.stdout), shown.stdout
    assert not servers_of(nights.folder)


def test_sigterm_ends_a_night_with_a_report(nights: Nights) -> None:
    process = nights.start()
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert "Traceback" not in stderr
    report = json.loads(stdout)
    assert report["jobs"][0]["reason"] == "the night was interrupted"
    (written,) = (nights.folder / "work/nights").glob("*/report.json")
    assert json.loads(written.read_text())["outcome"] == "failed"
    assert not servers_of(nights.folder)
