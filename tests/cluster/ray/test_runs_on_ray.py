"""Whole runs on a Ray cluster of two nodes: on the real Triton, and what a killed run leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.command_line import Running, await_that, start_tritontune, tritontune
from support.event_files import events_in, of, states_in
from support.ray_cluster import RayCluster, eventually

from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.xdist_group("ray"), pytest.mark.timeout(600)]

ON_RAY = ("--executor", "ray", "--parallel", "auto", "--cores-per-slot", 1)
# A walk at random, so that measurements decide nothing of how many trials there are.
ROUGH = ("--max-concurrency", 4, "--precision", "20%,50%", "--sampler", "random", "--seed", 7, "--budget", "9m")


@pytest.fixture
def slow_model(model_repository: ModelRepositoryFactory) -> Path:
    """A repository with the model `slow`: 10 ms an execution, however many requests are in it."""
    model_repository.add("slow", config=config_text(max_batch_size=16))
    return model_repository.path


def _nothing_is_left(cluster: RayCluster) -> None:
    eventually(lambda: not any(node.traces() for node in cluster.nodes))


@pytest.mark.triton
def test_the_real_triton_on_two_hosts_and_serially(connected: RayCluster, slow_model: Path, tmp_path: Path) -> None:
    options = ("--slo", "p99=2s", "--trials", 3, *ROUGH)
    done = tritontune("run", slow_model, *options, *ON_RAY, "--out", tmp_path / "ray")
    assert done.returncode == 0, done.stderr
    _nothing_is_left(connected)
    study = Study.load(tmp_path / "ray/study.db", "slow")
    assert len(study.trials) == 3
    assert {trial.host for trial in study.trials} <= {"head", "second"}
    # The reference host has the first trial, and the other one a launch of the baseline.
    assert {record.name for record in study.hosts} == {"head", "second"}
    assert sorted(len(record.launches) for record in study.hosts) == [0, 1]
    # Pairs are of one host.
    confirming = [each for each in study.verified if each.confirms]
    assert confirming
    by_round: dict[int, set[str]] = {}
    for each in study.verified:
        for number, host in zip(each.numbers, each.hosts_of_rounds, strict=True):
            by_round.setdefault(number, set()).add(host)
    assert all(len(hosts) == 1 for hosts in by_round.values())
    serial = tritontune("run", slow_model, *options, "--out", tmp_path / "serial")
    assert serial.returncode == 0, serial.stderr
    gains: list[dict[str, Any]] = [
        json.loads((tmp_path / run / "slow/front.json").read_text())["best"]["gain"]["throughput"]
        for run in ("ray", "serial")
    ]
    # One instance of 10 ms without batching answers 100 a second; batches and instances multiply that.
    assert all(gain["value"] > 1.5 for gain in gains)


@pytest.mark.usefixtures("fake_on_path")
class TestKills:
    def _underway(self, repository: Path, out: Path, *more: object) -> Running:
        run = start_tritontune("run", repository, "--slo", "p90=400ms", *ROUGH, *more, *ON_RAY, "--out", out)
        await_that(lambda: len(list(out.glob("slow/trials/*"))) >= 3 or run.poll() is not None, within_s=200)
        assert run.poll() is None, run.communicate()
        return run

    def test_a_killed_run_leaves_nothing_on_any_host_and_is_resumed(
        self, connected: RayCluster, slow_model: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        with self._underway(slow_model, out, "--trials", 6, "--no-verify") as run:
            children = psutil.Process(run.pid).children(recursive=True)
            run.send_signal(signal.SIGKILL)
            run.communicate()
        _nothing_is_left(connected)
        eventually(lambda: not any(each.is_running() for each in children))
        resumed = tritontune("run", "--resume", "--out", out)
        assert resumed.returncode == 0, resumed.stderr
        trials = Study.load(out / "study.db", "slow").trials
        assert len(trials) == 6
        assert len({tuple(trial.parameters.items()) for trial in trials}) == 6
        assert states_in(events_in(out))[-1][0] == "succeeded"
        _nothing_is_left(connected)

    def test_ctrl_c_reaches_every_host(self, connected: RayCluster, slow_model: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        with self._underway(slow_model, out, "--trials", 99) as run:
            os.killpg(run.pid, signal.SIGINT)
            _, stderr = run.communicate(timeout=120)
        assert run.returncode == 130, stderr
        assert "Traceback" not in stderr
        _nothing_is_left(connected)
        assert {each["host"] for each in of(events_in(out), "host")} == {"head", "second"}
