"""A warm-up is measured only where the first answer of the best config was slow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.builders import MLP, identity, point, space, trial
from support.executors import FakeExecutor

from tuner.cluster.dispatcher import Dispatcher
from tuner.config.patch import Patch
from tuner.config.warmup import WarmUpInput
from tuner.core.errors import Cause, ServerError
from tuner.jobs.progress import Progress
from tuner.jobs.warm_up import measure_warm_up, warm_up_takes_s
from tuner.measure.rules import LevelRules
from tuner.measure.work import Failure, Outcome, TrialTerms, Work
from tuner.options.tune_job import TuneJob
from tuner.results.words import warm_up_in_words
from tuner.study.study import Study

FOREVER = 1e12
SHAPE = (WarmUpInput(name="X", data_type="TYPE_FP32", dims=(4,)),)


class Launches:
    """Servers whose first answers take set times, with and without a warm-up.

    Args:
        cold_s: Seconds of the first answer without one.
        warm_s: Seconds of the first answer with one, or the error of its launch.
    """

    def __init__(self, cold_s: float, warm_s: float | ServerError) -> None:
        self.patches: list[Patch] = []
        self._cold_s, self._warm_s = cold_s, warm_s

    def carry_out(self, work: Work, *_: object) -> Outcome:
        self.patches.append(work.patch)
        answer_s = self._warm_s if "model_warmup" in work.patch.config else self._cold_s
        if isinstance(answer_s, ServerError):
            return Outcome(failure=Failure.of(answer_s))
        session = cast("Any", SimpleNamespace(request_shapes=lambda: (SHAPE,)))
        assert work.examine
        return Outcome(
            effective_config=work.patch.config,
            launch_s=2.0,
            first_answer_s=answer_s,
            examined=work.examine(session),
        )


def tuned(folder: Path, first_answer_s: float | None, config: str = MLP) -> Study:
    """The study of a baseline that is the best config, and answers in 10 ms."""
    study = Study.create_or_resume(folder / "study.db", identity(slo={"p99": "25ms"}))
    first = trial(0, point(1, 100, 10), config=config)
    times = {"first_answer_s": first_answer_s, "launch_s": 2.0, "effective_config": config}
    study.add(first.model_copy(update=times), space())
    return study


def measure(study: Study, folder: Path, launches: Launches, *, until: float = FOREVER) -> None:
    anything = cast("Any", None)
    options = TuneJob.make({"repository": str(folder), "slo": {"p99": "25ms"}})
    terms, executor = TrialTerms("mlp", options, LevelRules(), 8), FakeExecutor(launches.carry_out)
    measure_warm_up(study, terms, Dispatcher(executor), folder, lambda _: anything, Progress(), until=until)


@pytest.mark.parametrize("first_answer_s", [None, 0.01, 0.05, 0.1])
def test_where_there_is_nothing_to_save_nothing_is_launched(tmp_path: Path, first_answer_s: float | None) -> None:
    study, launches = tuned(tmp_path, first_answer_s), Launches(0.01, 0.01)
    assert warm_up_takes_s(study) == 0
    measure(study, tmp_path, launches)
    assert not launches.patches
    assert study.warm_up is None


def test_one_launch_without_and_one_with_it(tmp_path: Path) -> None:
    study, launches = tuned(tmp_path, 3.0), Launches(2.5, 0.02)
    before = study.launches
    assert warm_up_takes_s(study) > 2 * (2 + 3)
    measure(study, tmp_path, launches)
    assert ["model_warmup" in patch.config for patch in launches.patches] == [False, True]
    found = Study.load(tmp_path / "study.db", "mlp").warm_up
    assert found
    assert found.without
    assert found.warmed
    assert (found.without.answer_s, found.warmed.answer_s, found.reason, found.shapes) == (2.5, 0.02, "", (SHAPE,))
    assert study.launches == before + 2
    assert warm_up_in_words(found).startswith("first answer 2.5 s; 20 ms with a model_warmup")
    # A resumed run does not measure it again.
    measure(study, tmp_path, launches)
    assert len(launches.patches) == 2


@pytest.mark.parametrize(
    ("cold_s", "warm_s", "reason"),
    [
        (3.0, 2.9, "with one, it still took 2.9s"),
        (0.02, 0.02, "in another launch, it took 20ms"),
        (3.0, ServerError("no document", cause=Cause.INVALID_CONFIG), "a launch with one failed: no document"),
    ],
)
def test_why_none_is_offered(tmp_path: Path, cold_s: float, warm_s: float | ServerError, reason: str) -> None:
    study = tuned(tmp_path, 3.0)
    measure(study, tmp_path, Launches(cold_s, warm_s))
    assert study.warm_up
    assert study.warm_up.reason == reason
    assert not study.warm_up.shapes


@pytest.mark.parametrize("until", [0.0, FOREVER])
def test_a_model_for_which_none_can_be_made_launches_nothing(tmp_path: Path, until: float) -> None:
    study, launches = tuned(tmp_path, 3.0, f"{MLP}\nmodel_warmup {{ name: 'own' batch_size: 1 }}"), Launches(3, 0.1)
    assert warm_up_takes_s(study) == 0
    measure(study, tmp_path, launches, until=until)
    assert not launches.patches
    assert study.warm_up
    assert study.warm_up.reason == "it has a model_warmup of its own"


def test_without_time_a_resumed_run_may_still_measure_it(tmp_path: Path) -> None:
    study, launches = tuned(tmp_path, 3.0), Launches(3.0, 0.1)
    measure(study, tmp_path, launches, until=0.0)
    assert study.warm_up
    assert study.warm_up.reason == "no time left to measure one"
    measure(study, tmp_path, launches)
    assert not study.warm_up.reason
