"""Candidates that change files, server arguments, variables and other models: `run` and `export`, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import tritontune

from tuner.config.config import ModelConfig
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

SPACE = """\
schema: 1
parameters:
  file.delay: {file: 1/model.json, field: delay_ms, ladder: [2, 20]}
  env.delay: {env: SETTINGS_DELAY_MS, ladder: [0, 20]}
  pool:
    server_arg: --backend-config=python,thread-pool-size
    ladder: [off, 8]
    when: {file.delay: [2], env.delay: [0]}
"""
OTHER_MODEL = """\
schema: 1
parameters:
  slow.count: {model: slow, field: "instance_group[*].count", ladder: [1, 2]}
"""
OPTIONS = ("--sampler", "grid", "--no-verify", "--max-concurrency", 2, "--seed", 7, "--budget", "9m")
MODEL_JSON = '{\n  "name": "settings",  "delay_ms": 20\n}\n'


def _run(repository: Path, model: str, space: str, *options: object) -> Path:
    file = repository.parent / "space.yaml"
    file.write_text(space)
    out = repository.parent / "run"
    done = tritontune("run", repository, "--model", model, "--space", file, *OPTIONS, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def _best(run: Path, model: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / model / "front.json").read_text())["best"]
    return content


@pytest.mark.slow
@pytest.mark.triton
def test_a_file_a_variable_and_an_argument_are_tuned_and_deployed(
    model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    model_repository.add("settings", config=config_text())
    own = model_repository.path / "settings/1/model.json"
    own.write_text(MODEL_JSON)
    run = _run(model_repository.path, "settings", SPACE, "--env", "SETTINGS_DELAY_MS=20")
    assert own.read_text() == MODEL_JSON

    best = _best(run, "settings")
    assert (best["parameters"]["file.delay"], best["parameters"]["env.delay"]) == (2, 0)
    # 40 ms an answer became 2 ms.
    assert best["gain"]["throughput"]["value"] > 3
    assert best["files"] == {"settings/1/model.json": "best/1/model.json"}
    assert best["env"] == {"SETTINGS_DELAY_MS": "0"}
    assert best["server_args"].keys() <= {"--backend-config=python,thread-pool-size"}
    folder = run / "settings/best"
    tuned = MODEL_JSON.replace("20", "2")
    assert (folder / "1/model.json").read_text() == tuned
    assert (folder / "server.env").read_text() == "SETTINGS_DELAY_MS=0\n"
    diff = (folder / "config.diff").read_text()
    assert '-  "name": "settings",  "delay_ms": 20\n+  "name": "settings",  "delay_ms": 2\n' in diff
    assert "# variable SETTINGS_DELAY_MS: 20 -> 0\n" in diff

    commands = [path.read_text() for path in sorted(run.glob("settings/trials/*/command.txt"))]
    assert len(commands) == 5
    assert sum("--backend-config=python,thread-pool-size=8" in command for command in commands) == 1
    assert sum("SETTINGS_DELAY_MS=0" in command for command in commands) == 3

    one_file = tritontune("export", run)
    assert one_file.returncode == 2
    assert one_file.stderr.splitlines()[-1].endswith("use --to FOLDER or --in-place")
    copied = tritontune("export", run, "--to", tmp_path / "deploy")
    assert (tmp_path / "deploy/settings/1/model.json").read_text() == tuned
    assert "settings: set the environment variable SETTINGS_DELAY_MS=0" in copied.stderr
    placed = tritontune("export", run, "--in-place")
    assert placed.returncode == 0, placed.stderr
    assert own.read_text() == tuned
    (backup,) = own.parent.glob("model.json.bak-*")
    assert backup.read_text() == MODEL_JSON
    assert tritontune("export", run, "--in-place").stderr.count("unchanged, it is this config already") == 2
    assert (run / "report.html").read_text().count("SETTINGS_DELAY_MS") > 0


@pytest.mark.slow
@pytest.mark.usefixtures("fake_on_path")
def test_a_model_that_the_tuned_one_calls_is_tuned(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("slow", config=config_text())
    model_repository.add("calls", config=config_text(instances=4))
    # The code of `calls` finds the name of its callee there.
    (model_repository.path.parent / "common").mkdir()
    (model_repository.path.parent / "common/callee.py").write_text('NAME = "slow"\n')
    run = _run(model_repository.path, "calls", OTHER_MODEL)
    best = _best(run, "calls")
    assert best["parameters"] == {"slow.count": 2}
    assert best["gain"]["throughput"]["value"] > 1.2
    tuned = (run / "calls" / best["files"]["slow/config.pbtxt"]).read_text()
    assert tuned == config_text(instances=2)
    assert tritontune("export", run, "--in-place").returncode == 0
    assert (model_repository.path / "slow/config.pbtxt").read_text() == tuned


@pytest.mark.usefixtures("fake_on_path")
@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("p: {file: 1/none.json, ladder: [1]}", "model 'slow' has no file '1/none.json'"),
        ("p: {model: none, field: max_batch_size, ladder: [1]}", "no model 'none' in the repository"),
        ("p: {server_arg: --model-repository, ladder: [x]}", "server_arg: --model-repository cannot be set"),
    ],
)
def test_spaces_that_are_wrong_are_refused_before_any_launch(slow_model: Path, space: str, message: str) -> None:
    file = slow_model.parent / "space.yaml"
    file.write_text(f"schema: 1\nparameters:\n  {space}\n")
    out = slow_model.parent / "run"
    done = tritontune("run", slow_model, "--space", file, "--out", out)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not out.exists()


HOST_POLICY = """\
schema: 1
parameters:
  cores: {server_arg: "--host-policy=first,cpu-cores", ladder: [off, "0-0"]}
  policy: {field: "instance_group[*].host_policy", ladder: [off, first], when: {cores: ["0-0"]}}
  threads: {server_arg: --buffer-manager-thread-count, ladder: [off, 2], when: {policy: [first]}}
"""


@pytest.mark.slow
@pytest.mark.triton
def test_a_host_policy_is_an_argument_of_the_server_and_a_field(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("slow", config=config_text())
    run = _run(model_repository.path, "slow", HOST_POLICY)
    trials = Study.load(run / "study.db", "slow").trials
    assert [trial.failure for trial in trials] == [None] * 4
    policies = [
        ModelConfig.parse(trial.effective_config or "", "x").proto.instance_group[0].host_policy for trial in trials
    ]
    assert sorted(policies) == ["", "", "first", "first"]
    commands = "".join(path.read_text() for path in run.glob("slow/trials/*/command.txt"))
    assert commands.count("--host-policy=first,cpu-cores=0-0") == 3
    assert commands.count("--buffer-manager-thread-count=2") == 1
