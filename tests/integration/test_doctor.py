"""`tritontune doctor`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.command_line import tritontune
from support.docker_image import IMAGE

from tuner.testing.repositories import ModelRepositoryFactory


@pytest.mark.triton
def test_all_is_well(slow_model: Path) -> None:
    done = tritontune("doctor", slow_model)
    assert done.returncode == 0, done.stdout
    lines = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert list(lines) == [
        "python",
        "triton",
        "backends",
        "libpython",
        "docker",
        "cpu",
        "gpu",
        "ports",
        "leftovers",
        "repository",
        "model",
    ]
    assert "Triton 2." in lines["triton"]
    assert re.fullmatch(r"ok  backends   python in /\S+/backends", lines["backends"])
    assert lines["model"].startswith("ok")


@pytest.mark.triton
def test_each_model_gets_its_line(model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("identity", name="broken", config="max_batch_size: : 1")
    model_repository.add("identity", name="ensemble", config='platform: "ensemble"\nensemble_scheduling { }')
    model_repository.add("auto_complete", config="")
    done = tritontune("doctor", model_repository.path)
    assert done.returncode == 1
    assert "fix model      " in done.stdout
    assert "broken/config.pbtxt:1:17: " in done.stdout
    assert "ensemble: cannot be tuned" in done.stdout
    assert "auto_complete: no config.pbtxt, Triton completes it" in done.stdout
    assert done.stderr == "tritontune: not ready for tuning; fix: model\n"


def test_no_triton_at_the_path_that_was_named(tmp_path: Path) -> None:
    done = tritontune("doctor", "--triton-path", tmp_path)
    assert done.returncode == 1
    assert "fix triton" in done.stdout
    assert str(tmp_path) in done.stdout


@pytest.mark.docker
def test_a_wrong_path_is_wrong_beside_an_image_too(tmp_path: Path) -> None:
    done = tritontune("doctor", "--image", IMAGE, "--triton-path", tmp_path)
    assert done.returncode == 1
    assert "fix triton" in done.stdout
    assert "ok  docker" in done.stdout


def test_an_image_that_docker_does_not_have() -> None:
    done = tritontune("doctor", "--image", "no/such:image")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "docker" in line]
    assert line.startswith("fix docker")


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    done = tritontune("doctor", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "fix repository" in done.stdout
