"""What goes wrong in a trial, on a server that is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.executors import run_trial

from tuner.config.config import ModelConfig
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.core.errors import Cause, InputError, InterruptedRunError, TritontuneError, TuningError
from tuner.jobs.progress import Progress
from tuner.measure import work
from tuner.measure.rules import LevelRules
from tuner.measure.session import Session
from tuner.measure.trial import TrialResult
from tuner.measure.work import Limits, TrialContext, TrialTerms
from tuner.options.groups import LoadOptions
from tuner.space.candidate import Candidate
from tuner.testing.repositories import ModelRepositoryFactory, config_text

CONFIG = config_text()
LIMITS = Limits(launch_s=1.0, first_answer_s=1.0, total_s=0.0)


class Unmeasured:
    """A launcher whose servers nobody can measure."""

    @contextmanager
    def launch(self, _request: Any) -> Iterator[Any]:
        yield SimpleNamespace(command="tritonserver")


@pytest.fixture
def context(tmp_path: Path) -> TrialContext:
    (tmp_path / "repository").mkdir()
    repository = ModelRepositoryFactory(tmp_path / "repository")
    name = repository.add()
    return TrialContext(
        launcher=Unmeasured(),  # type: ignore[arg-type]  # all that is asked of it here
        repository=stage(ModelRepository.open(repository.path), tmp_path / "staged"),
        terms=TrialTerms(model=name, options=LoadOptions(), rules=LevelRules(), max_concurrency=4),
    )


def fail_with(error: TritontuneError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every session end with an error as it opens."""

    def session(*_: Any) -> Session:
        raise error

    monkeypatch.setattr(work, "_session", session)


def run(context: TrialContext, number: int, folder: Path) -> TrialResult:
    candidate = Candidate({}, ModelConfig.parse(CONFIG, "candidate"))
    return run_trial(context, candidate, number, folder / "trial", limits=LIMITS, progress=Progress())


@pytest.mark.parametrize("error", [InputError("batches of 32 do not fit"), TuningError("another answer")])
def test_whatever_is_wrong_with_a_candidate_is_its_own_failure(
    error: TritontuneError, context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    failure = run(context, 1, tmp_path).failure
    assert failure is not None
    assert (failure.cause, failure.message) == (Cause.REQUESTS_FAILED, str(error))


@pytest.mark.parametrize("error", [InputError("batches of 32 do not fit"), TuningError("another answer")])
def test_what_is_wrong_with_the_config_as_it_is_ends_the_run(
    error: TritontuneError, context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(error, monkeypatch)
    with pytest.raises(type(error), match=f"^{error}$"):
        run(context, 0, tmp_path)


def test_an_interruption_is_no_failure_of_a_candidate(
    context: TrialContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(InterruptedRunError("Ctrl-C"), monkeypatch)
    with pytest.raises(InterruptedRunError):
        run(context, 1, tmp_path)
