"""`tritontune run --parallel 2`: slots of this machine, each a process of its own, and what a lost one costs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.command_line import Running, await_that, start_tritontune, tritontune, words_of
from support.event_files import events_in, of, states_in

from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.usefixtures("fake_on_path")]

SLOTS = ("--parallel", 2, "--cores-per-slot", 1)
# A walk at random, so that measurements decide nothing of how many trials there are.
ROUGH = ("--max-concurrency", 4, "--precision", "20%,50%", "--sampler", "random", "--seed", 7)


@pytest.fixture(autouse=True)
def _two_cores() -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two slots need two cores")


def _study(run: Path) -> Study:
    return Study.load(run / "study.db", "slow")


def _descendants(run: Running) -> list[psutil.Process]:
    return psutil.Process(run.pid).children(recursive=True)


def _slot_processes(run: Running) -> list[psutil.Process]:
    return [each for each in psutil.Process(run.pid).children() if "slot_worker" in " ".join(words_of(each))]


def _none_lives(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def _phases(run: Path) -> list[str]:
    file = run / "events.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [event["phase"] for event in events if event["type"] == "phase"]


def _trials_under_way(run: Path) -> int:
    return len(list(run.glob("slow/trials/*/command.txt")))


def _each_trial_counts_once(run: Path) -> None:
    trials = _study(run).trials
    assert len({trial.number for trial in trials}) == len(trials)
    assert len({tuple(trial.parameters.items()) for trial in trials}) == len(trials)
    assert all(trial.failure is None for trial in trials)


@pytest.fixture(scope="module")
def finished(fake_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run in two slots."""
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "models").mkdir()
    ModelRepositoryFactory(folder / "models").add("slow", config=config_text(max_batch_size=16))
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", fake_path)
    options = ("--slo", "p90=400ms", "--trials", 5, "--budget", "9m", *ROUGH)
    done = tritontune("run", folder / "models", *options, *SLOTS, "--out", folder / "run")
    patch.undo()
    assert done.returncode == 0, done.stderr
    (folder / "stderr.txt").write_text(done.stderr)
    return folder / "run"


class TestAFinishedRun:
    def test_both_slots_have_work_at_a_time(self, finished: Path) -> None:
        trials = _study(finished).trials
        assert len(trials) == 5
        assert max(len(trial.beside) for trial in trials) == 1
        events = events_in(finished)
        assert len({event["slot"] for event in of(events, "trial_began")}) == 2
        (host,) = of(events, "host")
        assert len(host["slots"]) == 2

    def test_the_result_is_verified_in_pairs(self, finished: Path) -> None:
        best = json.loads((finished / "slow/front.json").read_text())["best"]
        assert best["verified"] is True
        assert best["gain"]["throughput"]["value"] > 1.5

    def test_logs_of_launches_are_in_the_folder_of_the_run(self, finished: Path) -> None:
        for trial in _study(finished).trials:
            folder = finished / f"slow/trials/{trial.number:03d}"
            assert {"command.txt", "config.pbtxt", "server.log"} <= {file.name for file in folder.iterdir()}


def _underway(repository: Path, out: Path, until: Callable[[], bool], *more: object) -> Running:
    """A run with two slots, until something is so."""
    options = ("--slo", "p90=400ms", "--budget", "9m", *ROUGH, *more)
    run = start_tritontune("run", repository, *options, *SLOTS, "--out", out)
    await_that(lambda: until() or run.poll() is not None, within_s=200)
    assert run.poll() is None, run.communicate()
    return run


@pytest.mark.timeout(400)
@pytest.mark.parametrize("phase", ["search", "verification", "certification"])
def test_a_killed_slot_costs_no_trial(slow_model: Path, tmp_path: Path, phase: str) -> None:
    out = tmp_path / "run"
    began = {
        "search": lambda: _trials_under_way(out) >= 3,
        "verification": lambda: bool(list(out.glob("slow/verified/*/server.log"))) and "verification" in _phases(out),
        "certification": (out / "slow/verified/certified").exists,
    }
    with _underway(slow_model, out, began[phase], "--trials", 5) as run:
        victims = _slot_processes(run)
        assert len(victims) == 2
        killed = victims if phase == "certification" else victims[:1]
        started = [each for victim in killed for each in victim.children(recursive=True)]
        for victim in killed:
            victim.kill()
        _, stderr = run.communicate(timeout=300)
    assert run.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert len(_study(out).trials) == 5
    _each_trial_counts_once(out)
    assert _none_lives(started)
    best: dict[str, Any] = json.loads((out / "slow/front.json").read_text())["best"]
    assert best["verified"] is True


@pytest.mark.timeout(400)
def test_a_killed_run_leaves_no_process_and_is_resumed(slow_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with _underway(slow_model, out, lambda: _trials_under_way(out) >= 3, "--trials", 5, "--no-verify") as run:
        started = _descendants(run)
        assert len(started) >= 4
        run.send_signal(signal.SIGKILL)
        run.communicate()
    await_that(lambda: _none_lives(started), within_s=30)
    resumed = tritontune("run", "--resume", "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    assert len(_study(out).trials) == 5
    _each_trial_counts_once(out)
    events = events_in(out)
    assert states_in(events)[-1][0] == "succeeded"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_all_slots_and_keeps_what_was_measured(
    slow_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    with _underway(slow_model, out, lambda: _trials_under_way(out) >= 3, "--trials", 99) as run:
        started = _descendants(run)
        run.send_signal(number)
        _, stderr = run.communicate(timeout=120)
    assert run.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "resume with: tritontune run --resume" in stderr
    assert _none_lives(started)
    assert (out / "report.html").exists()
    assert _study(out).trials


def test_two_runs_never_share_a_slot(slow_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with _underway(slow_model, out, lambda: _trials_under_way(out) >= 1, "--trials", 99) as run:
        second = tritontune("run", slow_model, *SLOTS, "--out", tmp_path / "second")
        assert second.returncode == 2
        assert "no slot is free: other runs use the GPUs or cores of this machine" in second.stderr
        assert str(run.pid) in second.stderr
        assert not (tmp_path / "second").exists()
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=120)


@pytest.mark.triton
@pytest.mark.timeout(400)
def test_the_real_triton_in_two_slots(slow_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--slo", "p99=2s", "--trials", 4, "--budget", "5m", "--no-verify", *ROUGH)
    done = tritontune("run", slow_model, *options, *SLOTS, "--out", out)
    assert done.returncode == 0, done.stderr
    _each_trial_counts_once(out)
    assert max(len(trial.beside) for trial in _study(out).trials) == 1
    commands = [file.read_text() for file in out.glob("slow/trials/*/command.txt")]
    assert len(commands) == 4
