"""A warm-up on the real Triton, of a model whose first execution of each batch size is slow."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from support.builders import identity, point, space, trial
from support.executors import FakeExecutor

from tuner.cluster.dispatcher import Dispatcher
from tuner.config.config import ModelConfig
from tuner.config.repository import ModelRepository
from tuner.config.staging import stage
from tuner.jobs.progress import Progress
from tuner.jobs.warm_up import measure_warm_up
from tuner.measure.rules import LevelRules
from tuner.measure.work import Limits, TrialContext, TrialTerms, carry_out
from tuner.options.tune_job import TuneJob
from tuner.recommend.warm_up import WarmUp
from tuner.results.warmed import warmed
from tuner.servers.process import ProcessLauncher
from tuner.study.study import Study
from tuner.testing.repositories import ModelRepositoryFactory, config_text

pytestmark = [pytest.mark.triton, pytest.mark.slow]


def measured(launcher: ProcessLauncher, users: ModelRepositoryFactory, folder: Path, config: str) -> WarmUp:
    """The warm-up of the model `lazy` that was measured, after a trial in which its first answer took a second."""
    users.add("lazy", config=config)
    study = Study.create_or_resume(folder / "study.db", identity(model="lazy", slo={"p99": "25ms"}))
    searched = trial(0, point(1, 300, 3), config=config).model_copy(update={"first_answer_s": 1.0})
    study.add(searched, space(config=config))
    options = TuneJob.make({"repository": str(users.path), "slo": {"p99": "25ms"}})
    repository = stage(ModelRepository.open(users.path), folder / "copy")
    terms = TrialTerms("lazy", options, LevelRules(), 8)
    context = TrialContext(terms, launcher, repository)
    executor = FakeExecutor(lambda work, into, progress: carry_out(work, context, into, progress))

    def limits(until: float) -> Limits:
        return Limits(60.0, 60.0, until - time.monotonic())

    measure_warm_up(
        study, terms, Dispatcher(executor), folder / "logs", limits, Progress(), until=time.monotonic() + 500
    )
    assert study.warm_up
    if study.warm_up.shapes:
        text = warmed(study, searched, config)
        assert text
        assert ModelConfig.parse(text, "it").proto.model_warmup[-1].batch_size == 8
    return study.warm_up


def test_the_first_answer_is_as_quick_as_later_ones(
    triton_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    config = config_text(max_batch_size=8, more="dynamic_batching { }", first_ms=1000)
    warm_up = measured(triton_launcher, model_repository, tmp_path, config)
    assert not warm_up.reason
    assert warm_up.without
    assert warm_up.warmed
    assert warm_up.without.answer_s >= 1.0 > 2 * warm_up.warmed.answer_s
    # Batches of 1 and of 8.
    assert warm_up.warmed.launch_s >= 2.0


def test_a_model_that_refuses_it_says_so(
    triton_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    config = config_text(max_batch_size=8, first_ms=1000, refuses_zeros="yes")
    warm_up = measured(triton_launcher, model_repository, tmp_path, config)
    assert not warm_up.shapes
    # Triton 2.51 may crash while it gives up a model whose warm-up fails, before it writes the reason.
    assert re.search("^a launch with one failed: .*(not a document|was ended by SIGSEGV)", warm_up.reason)
