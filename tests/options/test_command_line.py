from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from click.testing import CliRunner

from tuner.cli import run as run_command
from tuner.cli.main import cli
from tuner.options.command_line import command_line
from tuner.options.tune_job import TuneJob

OPTIONS: dict[str, Any] = {
    "repository": "models",
    "model": ["mlp", "other model"],
    "slo": ["p99=100ms", "p50=2.5ms"],
    "budget": "90s",
    "trials": "7",
    "sampler": "tpe",
    "space": "latency",
    "precision": "2%,5%",
    "isolation": "reload",
    "verify": False,
    "explain": True,
    "max_gpu_memory": "8GiB",
    "output_tolerance": "off",
    "server": "docker",
    "image": "my-triton:1",
    "launch_timeout": "90s",
    "triton_arg": ["--log-verbose=1"],
    "gpus": "0,1",
    "shm_size": "4g",
    "mount": ["/data:/weights:ro", "cache:/cache"],
    "docker_arg": ["cap_add=[SYS_PTRACE]"],
    "shape": ["X:1,2"],
    "batch_size": "4",
    "queue_timeout": "2ms",
    "seed": "3",
}


def _asks_for(line: str, monkeypatch: pytest.MonkeyPatch) -> TuneJob:
    """The job that a command line makes."""
    made: list[TuneJob] = []

    def run(_job: Any, options: Mapping[str, Any], _out: Any, *, resume: bool, **_: Any) -> None:
        assert not resume
        made.append(TuneJob.make(options))

    monkeypatch.setattr(run_command, "run", run)
    words = shlex.split(line)
    assert words[0] == "tritontune"
    ended = CliRunner().invoke(cli, words[1:])
    assert ended.exit_code == 0, ended.output
    return made[0]


def test_the_command_line_asks_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    job = TuneJob.make(OPTIONS)
    assert _asks_for(command_line(job), monkeypatch) == job


@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "repository"])
def test_so_does_each_option_alone(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"repository": "models", option: OPTIONS[option]}
    job = TuneJob.make(needed)
    assert _asks_for(command_line(job), monkeypatch) == job


def test_what_is_the_default_is_not_said() -> None:
    assert command_line(TuneJob.make({"repository": "models"})) == "tritontune run models"


def test_a_server_that_runs_is_named() -> None:
    assert command_line(TuneJob.make({"url": "grpcs://triton:8001"})) == "tritontune run --url grpcs://triton:8001"


def test_nothing_secret_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "hunter2")
    line = command_line(
        TuneJob.make(
            {
                "repository": "models",
                "header": ["authorization: Bearer hunter2"],
                "env": ["HF_TOKEN=hunter2", "API_KEY", "PLAIN=hunter2"],
                "request_parameter": ["key:hunter2:string"],
                "triton_arg": ["--http-restricted-api=health:admin-key=hunter2"],
                "docker_arg": ['labels={"password": "hunter2"}'],
            }
        )
    )
    assert "hunter2" not in line
    for name in ("authorization:", "HF_TOKEN=", "API_KEY=", "PLAIN=", "key:", "--http-restricted-api"):
        assert name in line
