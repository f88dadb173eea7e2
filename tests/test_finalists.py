from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.builders import identity, point, space, trial
from support.nvml import GIB, StandInGpu, StandInLibrary, installed, memory_of_instances
from support.repositories import ModelRepositoryFactory, config_text

from tuner.finalists import verify
from tuner.measure.gpu import Gpus
from tuner.measure.rules import LevelRules
from tuner.models.repository import ModelRepository
from tuner.models.staging import stage
from tuner.options import LoadOptions
from tuner.progress import Progress
from tuner.search.study import Study
from tuner.servers.process import ProcessLauncher
from tuner.slo import SLO
from tuner.trial import Bench, Limits

pytestmark = pytest.mark.triton

ONE = config_text()
TWO = config_text(instances=2)


@pytest.fixture
def bench(triton_launcher: ProcessLauncher, model_repository: ModelRepositoryFactory, tmp_path: Path) -> Bench:
    model_repository.add("slow", config=ONE)
    return Bench(
        launcher=triton_launcher,
        repository=stage(ModelRepository.open(model_repository.path), tmp_path / "staged"),
        model="slow",
        options=LoadOptions(),
        slo=SLO.parse(["p99=200ms"]),
        rules=LevelRules(min_s=0.3, max_s=0.4),
        max_concurrency=4,
    )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create_or_resume(tmp_path / "study.db", identity(slo={"p99": "200ms"}))


def _verify(study: Study, bench: Bench, tmp_path: Path, *, within_s: float = 60.0) -> None:
    limits = Limits(launch_s=30.0, first_answer_s=10.0, until=time.monotonic() + within_s)
    verify(study, bench, tmp_path / "verified", limits=limits, progress=Progress())


def test_luck_makes_way_for_what_is_true(study: Study, bench: Bench, tmp_path: Path) -> None:
    built = space()
    # A 10 ms model answers about 95 a second for each instance; 900 is luck that does not hold up.
    study.add(trial(0, point(1, 95, 12), parameters=built.baseline, config=ONE), built)
    study.add(trial(1, point(1, 900, 12), parameters=built.baseline, config=ONE), built)
    study.add(trial(2, point(2, 180, 14), parameters=built.settle({"instance_group.count": 2}), config=TWO), built)
    _verify(study, bench, tmp_path)
    found = study.recommendation
    assert found.best is not None
    assert (found.best.trial.number, found.best.verified) == (2, True)
    assert found.baseline is not None
    assert found.baseline.verified
    assert found.gain is not None
    assert found.gain.value == pytest.approx(2.0, rel=0.25)
    assert {(each.trial, len(each.rounds)) for each in study.verified} == {(0, 3), (1, 3), (2, 3)}
    assert study.launches == 3 + 9


def test_one_that_does_not_launch_again_is_struck_off(study: Study, bench: Bench, tmp_path: Path) -> None:
    built = space()
    study.add(trial(0, point(1, 95, 12), parameters=built.baseline, config=ONE), built)
    study.add(trial(1, point(2, 500, 14), parameters=built.baseline, config='backend: "none"\n'), built)
    _verify(study, bench, tmp_path)
    assert study.recommendation.best is not None
    assert study.recommendation.best.trial.number == 0
    assert any(each.failure and each.failure.startswith("invalid_config: ") for each in study.verified)


def test_one_that_breaks_the_slo_gets_no_further_round(study: Study, bench: Bench, tmp_path: Path) -> None:
    built = space()
    study.add(trial(0, point(1, 95, 12), parameters=built.baseline, config=ONE), built)
    # 64 requests under way on one instance of 10 ms wait for more than half a second.
    study.add(trial(1, point(64, 500, 14), parameters=built.baseline, config=ONE), built)
    _verify(study, bench, tmp_path)
    (broken,) = [each for each in study.verified if each.trial == 1]
    assert len(broken.rounds) == 1
    assert study.recommendation.best is not None
    assert study.recommendation.best.trial.number == 0


def test_it_ends_when_the_time_is_up(study: Study, bench: Bench, tmp_path: Path) -> None:
    built = space()
    study.add(trial(0, point(1, 95, 12), parameters=built.baseline, config=ONE), built)
    _verify(study, bench, tmp_path, within_s=0.0)
    assert study.verified == ()


def test_one_that_takes_too_much_memory_of_a_gpu_this_time_is_struck_off(
    study: Study, bench: Bench, tmp_path: Path
) -> None:
    one, two = (config.replace("KIND_CPU", "KIND_MODEL") for config in (ONE, TWO))
    built = space()
    study.add(trial(0, point(1, 95, 12), parameters=built.baseline, config=one), built)
    study.add(trial(1, point(2, 180, 14), parameters=built.baseline, config=two), built)
    with installed(StandInLibrary(StandInGpu(used=memory_of_instances))), Gpus("all", lambda _: None) as gpus:
        _verify(study, replace(bench, gpus=gpus, max_gpu_memory=3 * GIB // 2), tmp_path)
    (struck,) = [each for each in study.verified if each.trial == 1]
    assert struck.failure == "it took 2 GiB of GPU memory, and 1.5 GiB is the limit"
    assert len(struck.rounds) == 1
    assert study.recommendation.best is not None
    assert study.recommendation.best.trial.number == 0
