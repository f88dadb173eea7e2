from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
from support.command_line import tritontune
from support.rough import rough_measurements

from tuner.testing.repositories import ModelRepositoryFactory, config_text


@pytest.fixture(autouse=True)
def rough(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measurements in this process are short, but where it is them that are tested."""
    with nullcontext() if request.node.get_closest_marker("statistics") else rough_measurements():
        yield


@pytest.fixture
def slow_model(model_repository: ModelRepositoryFactory) -> Path:
    """A repository with the model `slow`: 10 ms an execution, however many requests are in it."""
    model_repository.add("slow", config=config_text(max_batch_size=16))
    return model_repository.path


@pytest.fixture(scope="session")
def finished_run(fake_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the model `slow`, with p90 <= 400 ms; the repository lies beside it."""
    folder = tmp_path_factory.mktemp("finished")
    repository = folder / "model_repository"
    repository.mkdir()
    ModelRepositoryFactory(repository).add("slow", config=config_text(max_batch_size=16))
    out = folder / "run"
    # Limit and budget are far from what a busy machine makes of them: it ends by its trials and its rounds.
    options = ("--slo", "p90=400ms", "--trials", 3, "--seed", 7, "--max-concurrency", 8, "--budget", "9m")
    with mock.patch.dict(os.environ, PATH=fake_path), rough_measurements():
        done = tritontune("run", repository, *options, "--out", out, "--verbose")
    assert done.returncode == 0, done.stderr
    (folder / "stdout.txt").write_text(done.stdout)
    (folder / "stderr.txt").write_text(done.stderr)
    return out
