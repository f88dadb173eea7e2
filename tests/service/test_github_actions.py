"""The workflow of GitHub in `examples/github-actions`: its steps run against a service of tests."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.pages import ROOT
from support.service_peer import TOKEN, ServicePeer, interval, proposal, states

from tuner.client.resources import Job
from tuner.core.record import Interval
from tuner.jobs.events import Event, ModelResult

FILE = ROOT / "examples/github-actions/tune-pull-request.yml"
_RESULTS = (
    ModelResult(
        model="mlp",
        trial=3,
        throughput=interval(1234.0),
        latency_ms=interval(12.3),
        percentile="p99",
        gain=interval(1.5),
    ),
    ModelResult(model="cnn", trial=None, failure="does not | load"),
    ModelResult(model="fat", trial=1, gain=Interval(value=2.0, low=1.2, high=math.inf)),
)


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return content


def _script(workflow: Mapping[str, Any], name: str) -> str:
    (script,) = [step["run"] for step in workflow["jobs"]["tune"]["steps"] if step.get("name") == name]
    return str(script)


def test_secrets_and_names_are_never_read_as_commands(workflow: Mapping[str, Any]) -> None:
    # YAML 1.1 reads the key `on` as true.
    triggers = dict[Any, Any](workflow)[True]
    assert triggers == {"pull_request": {"paths": ["model_repository/**"]}}
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    job = workflow["jobs"]["tune"]
    assert job["env"]["TRITONTUNE_TOKEN"] == "${{ secrets.TRITONTUNE_TOKEN }}"  # noqa: S105 (a reference)
    assert "head.repo.full_name == github.repository" in job["if"]
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    for script in scripts:
        assert "${{" not in script
        assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    assert "submit" in _script(workflow, "Tune")
    assert "--wait --json" in _script(workflow, "Tune")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone in which a commit has changed one of two models."""
    folder = tmp_path / "checkout"
    for model in ("mlp", "cnn"):
        (folder / "model_repository" / model).mkdir(parents=True)
        (folder / "model_repository" / model / "config.pbtxt").write_text("max_batch_size: 8\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(folder)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for message in ("one", "two"):
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", message], check=True)
        (folder / "model_repository/mlp/config.pbtxt").write_text("max_batch_size: 16\n")
        (folder / "model_repository/mlp/1").mkdir(exist_ok=True)
        (folder / "model_repository/mlp/1/new model.py").write_text("")
    return folder


@pytest.fixture
def peer() -> Iterator[ServicePeer]:
    with ServicePeer() as peer:
        yield peer


class _Runner:
    """Runs steps as GitHub's runner does."""

    def __init__(self, workflow: Mapping[str, Any], checkout: Path, peer: ServicePeer) -> None:
        self._workflow, self._checkout = workflow, checkout
        self.temp = checkout.parent / "temp"
        self.temp.mkdir()
        tools = checkout.parent / "tools"
        tools.mkdir()
        # It writes what it is asked for.
        (tools / "gh").write_text('#!/bin/sh\necho "$@" > "$RUNNER_TEMP/gh"\n')
        (tools / "gh").chmod(0o755)
        base = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD~1"], capture_output=True, text=True, check=True
        )
        self._environment = {
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(self.temp / "output"),
            "MODELS": str(checkout.parent / "models/7"),
            "BASE": base.stdout.strip(),
            "NUMBER": "7",
            "TRITONTUNE_SERVER": peer.address,
            "TRITONTUNE_TOKEN": TOKEN,
        }

    def run(self, name: str, **environment: str) -> int:
        script = _script(self._workflow, name)
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self._checkout,
            env={**self._environment, **environment},
            check=False,
            timeout=60,
        )
        return done.returncode

    @property
    def output(self) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(.*)", (self.temp / "output").read_text()))


@pytest.fixture
def runner(workflow: dict[str, Any], checkout: Path, peer: ServicePeer) -> _Runner:
    return _Runner(workflow, checkout, peer)


@pytest.mark.slow
def test_the_result_becomes_a_comment(runner: _Runner, peer: ServicePeer) -> None:
    def end(job: Job) -> list[Event]:
        peer.jobs[job.id] = job.model_copy(update={"results": _RESULTS})
        return states("queued", "running", "succeeded", exit_code=3, reason="no candidate of cnn holds the SLO")

    peer.on_submit = end
    peer.proposals[1] = proposal(model="mlp")
    assert [runner.run(name) for name in ("Job file", "Tune", "Comment")] == [0, 0, 0]
    assert peer.jobs[1].job == {
        "repository": runner._environment["MODELS"],
        "model": ["mlp"],
        "slo": {"p99": "40ms"},
        "budget": "10m",
    }
    assert (Path(runner._environment["MODELS"]) / "mlp/1/new model.py").exists()
    assert runner.output == {"code": "3"}
    assert (runner.temp / "gh").read_text() == (
        f"pr comment 7 --body-file {runner.temp}/comment.md --edit-last --create-if-none\n"
    )
    assert (runner.temp / "comment.md").read_text().splitlines() == [
        f"**tritontune**: [job 1]({peer.address}/jobs/1) succeeded: no candidate of cnn holds the SLO",
        "",
        "| model | throughput | latency | gain |",
        "| --- | --- | --- | --- |",
        "| mlp | 1,234 inferences/s | p99 12.3 ms | 1.50 x (1.42 to 1.58) |",
        "| cnn | does not \\| load |  |  |",
        "| fat | no candidate holds the SLO |  | 2.00 x (1.20 to any) |",
        "",
        "<details><summary>Proposed config of mlp</summary>",
        "",
        "```diff",
        *peer.proposals[1].diff.splitlines(),
        "```",
        "",
        "</details>",
    ]
    assert [runner.run("Result", CODE=code) for code in ("0", "3", "1", "130")] == [0, 0, 1, 130]


@pytest.mark.slow
def test_the_job_of_a_cancelled_workflow_is_cancelled(runner: _Runner, peer: ServicePeer) -> None:
    assert runner.run("Cancel the job of a cancelled workflow") == 0, "there is none yet"
    peer.add()
    (runner.temp / "result.json").write_text(json.dumps({"id": 1}))
    assert runner.run("Cancel the job of a cancelled workflow") == 0
    assert peer.jobs[1].state == "cancelled"


@pytest.mark.slow
def test_without_a_service_the_step_fails(runner: _Runner, peer: ServicePeer) -> None:
    peer.stop()
    (runner.temp / "job.yaml").write_text("repository: /models\n")
    assert runner.run("Tune") == 1
    assert runner.output == {"code": "1"}
