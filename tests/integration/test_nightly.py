"""`tritontune nightly`: night after night, killed ones and slower models included."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Running, await_that, servers_of, start_tritontune, tritontune
from support.event_files import events_in, of, states_in
from support.nights import jobs_file

from tuner.config.config import ModelConfig
from tuner.jobs import model_tuning
from tuner.measure import meter
from tuner.measure.rules import LevelRules
from tuner.nightly import model_night
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.timeout(500)

_JOB = {
    # Of the median a few requests tell enough; far above what the model takes, however busy the machine is.
    "slo": {"p50": "5s"},
    # The night ends by its counts.
    "budget": "1h",
    "trials": 2,
    "max_concurrency": 4,
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

    def run(self) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
        done = tritontune("nightly", self.folder / "jobs.yaml", "--json")
        assert done.stdout, done.stderr
        return done, json.loads(done.stdout)

    def start(self) -> Running:
        """One that has a server running."""
        process = start_tritontune("nightly", self.folder / "jobs.yaml", "--json")
        await_that(lambda: bool(servers_of(self.folder / "work")))
        return process

    def told(self) -> list[str]:
        return [json.loads(line)["outcome"] for line in (self.folder / "told.jsonl").read_text().splitlines()]


@pytest.fixture
def nights_of(tmp_path: Path) -> Callable[..., Nights]:
    """Of a repository with the model `slow`."""

    def make(**job: object) -> Nights:
        # Two candidates in all, so that a night has little to launch.
        space = tmp_path / "space.yaml"
        space.write_text("schema: 1\nparameters:\n  dynamic_batching: {ladder: [off, on]}\n")
        own = {"repository": str(tmp_path / "model_repository"), "action": "apply", "space": str(space)}
        settings = {
            "work": str(tmp_path / "work"),
            "window": "4h",
            "prometheus": str(tmp_path / "nightly.prom"),
            # Nobody is there, which is to change nothing.
            "notify": [{"webhook": "http://127.0.0.1:9/s3cret"}, {"file": str(tmp_path / "told.jsonl")}],
        }
        jobs_file(tmp_path / "jobs.yaml", {**_JOB, **own, **job}, **settings)
        return Nights(tmp_path)

    return make


def take_ms(nights: Nights, service_ms: int) -> None:
    """Have the model take so long, by its files: its config stays as it is."""
    (nights.config.parent / "1/model.fake").write_text(
        f'parameters {{ key: "service_us" value {{ string_value: "{service_ms * 1000}" }} }}\n'
    )


@pytest.fixture
def nights(model_repository: ModelRepositoryFactory, nights_of: Callable[..., Nights], fake_on_path: None) -> Nights:
    """Of a model of which an execution takes 20 ms, however many requests are in it."""
    del fake_on_path
    text = config_text(max_batch_size=16, more="# mine").replace('backend: "python"', 'backend: "fake"')
    model_repository.add_known("slow", text)
    made = nights_of(min_regression="50%")
    take_ms(made, 20)
    return made


@pytest.fixture
def short_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels are short, launches few, and nothing is known of what else this machine does."""
    short = LevelRules(min_s=0.1, max_s=0.1)
    monkeypatch.setattr(model_tuning, "_SWEEP_RULES", short)
    monkeypatch.setattr(model_night, "_RULES", short)
    monkeypatch.setattr(model_night, "_CANDIDATE_RULES", short)
    monkeypatch.setattr(model_night, "_MOST_LAUNCHES", model_night._LAUNCHES)
    monkeypatch.setattr(meter, "machine_load", lambda *_, **__: None)
    monkeypatch.setattr(meter, "machine_speed", lambda *_, **__: None)


def assert_improved(nights: Nights, before: str) -> None:
    """Run a night that finds the other config better, and applies it."""
    done, report = nights.run()
    assert done.returncode == 10, done.stderr
    (job,) = report["jobs"]
    assert (job["outcome"], job["regression"]) == ("improved", False)
    assert job["gain"]["low"] > 1.03
    assert list(nights.folder.glob("work/nights/*/model_repository/slow/report.html"))
    own = max(nights.folder.glob("work/nights/*/model_repository/slow"))
    events = events_in(own)
    assert states_in(events) == [("starting", 1, None), ("running", 1, None), ("succeeded", 1, 10)]
    assert [event["phase"] for event in of(events, "phase")][-2:] == ["report", "comparison"]
    assert [event["night"] for event in of(events, "night_ended")] == [job]
    assert ModelConfig.read(nights.config).holds("dynamic_batching")
    assert "# mine" in nights.config.read_text()
    (backup,) = nights.config.parent.glob("config.pbtxt.bak-*")
    assert backup.read_text() == before
    assert any("127.0.0.1:9/... cannot be reached" in note for note in report["notes"])
    assert "s3cret" not in done.stdout + done.stderr
    assert not servers_of(nights.folder)


@pytest.mark.usefixtures("short_and_alone")
def test_night_after_night(nights: Nights) -> None:
    before = nights.config.read_text()

    # The first is killed in the middle of a trial. It leaves the config as it was, and the next night starts clean.
    killed = nights.start()
    killed.kill()
    killed.communicate()
    assert nights.config.read_text() == before
    assert_improved(nights, before)
    applied = nights.config.read_text()

    # The second has nothing better to find.
    done, report = nights.run()
    assert done.returncode == 0, done.stderr
    assert nights.config.read_text() == applied
    (job,) = report["jobs"]
    assert "against 1 earlier night" in job["drift"]
    assert "trials, measured under the same conditions" in done.stderr  # the trials of the night before

    # A model that got slower is told, though no other config is better.
    take_ms(nights, 80)
    done, report = nights.run()
    (job,) = report["jobs"]
    assert "the model's files have changed since" in job["drift"]
    assert job["drift"].startswith("slower: ")
    assert (done.returncode, job["regression"]) == (20, True), done.stderr
    assert 'tritontune_nightly_regression{model="slow"' in (nights.folder / "nightly.prom").read_text()

    assert nights.told() == ["improved", "kept", "regression"]
    shown = tritontune("history", "--history", nights.folder / "work/history.db")
    assert re.search(r"improved .*\n.* kept .*\n.* regression ", shown.stdout), shown.stdout
    assert not servers_of(nights.folder)


@pytest.mark.triton
@pytest.mark.usefixtures("short_and_alone", "triton_installation")
def test_a_night_on_a_real_triton(model_repository: ModelRepositoryFactory, nights_of: Callable[..., Nights]) -> None:
    model_repository.add("slow", config=config_text(max_batch_size=16, more="# mine", sleep_ms=20))
    nights = nights_of()
    assert_improved(nights, nights.config.read_text())
    assert nights.told() == ["improved"]


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
