"""Runs of models whose config the server completes, changes or refuses, on the fake Triton."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner import TuneJob, tune
from tuner.core.errors import Cause
from tuner.jobs import model_tuning
from tuner.jobs.progress import ModelOutcome, Progress
from tuner.measure.rules import LevelRules
from tuner.servers.installation import TritonInstallation
from tuner.study.run_folder import RunFolder
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = pytest.mark.slow

SPACE = """\
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 8, 16, 32, 64, 128]}
"""
# Takes batches of up to 8, as an engine that was built so.
BUILT_FOR_8 = """
    def initialize(self, args):
        import json
        size = json.loads(args["model_config"])["max_batch_size"]
        if size > 8:
            raise RuntimeError(f"engine supports batches of 8 at most, got {size}")
"""


class Noted(Progress):
    """Remembers what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Runs:
    """Tunes the one model of a repository."""

    def __init__(self, triton: TritonInstallation, repository: ModelRepositoryFactory, folder: Path) -> None:
        self._triton = triton
        self._repository = repository
        self._folder = folder
        self.notes: list[str] = []

    def tune(self, space: str = SPACE, **options: object) -> ModelOutcome:
        (self._folder / "space.yaml").write_text(space)
        defaults = {
            "repository": self._repository.path,
            "triton_path": self._triton.binary.parent,
            "space": str(self._folder / "space.yaml"),
            "sampler": "grid",
            "max_concurrency": 1,
            "verify": False,
            "output_tolerance": "off",
        }
        told = Noted()
        job = TuneJob.make({**defaults, **options})
        (outcome,) = tune(job, out=RunFolder(self._folder / "run"), progress=told).outcomes
        self.notes = told.notes
        return outcome


@pytest.fixture
def runs(
    fake_triton: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Runs:
    """How precise the numbers are is not for these tests."""
    monkeypatch.setattr(model_tuning, "_SWEEP_RULES", LevelRules(min_s=0.05, max_s=0.1))
    return Runs(fake_triton, model_repository, tmp_path)


def test_what_the_model_completes_otherwise_is_not_recommended_under_the_candidates_name(
    runs: Runs, model_repository: ModelRepositoryFactory
) -> None:
    model_repository.add("auto_complete", config="")
    outcome = runs.tune()
    told = {trial.parameters.get("max_batch_size"): trial.failure for trial in outcome.study.trials}
    assert outcome.study.trials[0].failure is None
    assert {size: failure.cause for size, failure in told.items() if failure} == {
        4: Cause.CONFIG_DIFFERS,
        16: Cause.INVALID_CONFIG,
    }
    assert told[4]
    assert told[4].message.startswith("max_batch_size is 8, but 4 was requested: ")
    note = "dynamic_batching does not vary: it can only be on: the model's auto_complete_config switches it on"
    assert note in runs.notes
    assert [note.partition(":")[0] for note in runs.notes if "16 or more" in note] == ["skipped"]


def test_a_model_without_a_file_is_tried_with_larger_batches_than_the_server_chose(
    runs: Runs, model_repository: ModelRepositoryFactory
) -> None:
    model_repository.add("auto_complete", config="")
    code = model_repository.path / "auto_complete" / "1" / "model.py"
    larger = 'config.set_max_batch_size(max(8, config.as_dict()["max_batch_size"]))'
    code.write_text(code.read_text().replace("config.set_max_batch_size(8)", larger))
    outcome = runs.tune(SPACE.replace("[4, 8, 16, 32, 64, 128]", "[8, 64]"))
    assert [(trial.parameters["max_batch_size"], trial.failure) for trial in outcome.study.trials] == [
        (8, None),
        (64, None),
    ]
    assert "preferred_batch_size: [64]" in (outcome.study.trials[1].effective_config or "")


def test_what_was_refused_is_not_tried_larger(runs: Runs, model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("identity", config=config_text(max_batch_size=8))
    code = model_repository.path / "identity" / "1" / "model.py"
    code.write_text(code.read_text().rstrip("\n") + "\n" + BUILT_FOR_8)
    outcome = runs.tune()
    failed = [trial.parameters["max_batch_size"] for trial in outcome.study.trials if trial.failure]
    assert failed == [16]
    (skipped,) = [note for note in runs.notes if note.startswith("skipped: ")]
    assert "did not load with max_batch_size 16 or more: " in skipped
    assert outcome.ended == "every candidate has been measured or skipped"


def test_equal_configs_are_measured_once(runs: Runs, model_repository: ModelRepositoryFactory) -> None:
    model_repository.add("identity", config=config_text(more="dynamic_batching { }"))
    space = """\
schema: 1
parameters:
  dynamic_batching.max_queue_delay_microseconds: {ladder: [off, 0, 100]}
"""
    outcome = runs.tune(space)
    assert [trial.failure for trial in outcome.study.trials] == [None, None]
    assert [note for note in runs.notes if note.startswith("skipped: ")] == [
        "skipped: max_queue_delay_microseconds 0: same effective config as trial 0"
    ]


def test_limits_that_cannot_take_the_jobs_requests_are_left_out(
    runs: Runs, model_repository: ModelRepositoryFactory
) -> None:
    model_repository.add("identity", config=config_text(max_batch_size=64))
    outcome = runs.tune(SPACE.replace("16, 32, 64, 128", "64"), batch_size=32)
    assert "max_batch_size: 4, 8 left out: requests hold 32 inferences (-b)" in runs.notes
    assert [trial.failure for trial in outcome.study.trials] == [None, None]
