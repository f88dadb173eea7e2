from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from support.builders import SMALL_SPACE, identity, point, space, trial

from tuner.analysis.importance import FEWEST_TRIALS, importances
from tuner.core.errors import Cause
from tuner.space.candidate import Assignment
from tuner.space.spec import parse_space
from tuner.study.study import Study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    spec = parse_space(SMALL_SPACE, "test.yaml").model_dump_json(by_alias=True)
    return Study.create_or_resume(tmp_path / "study.db", identity(space=spec))


def _add(study: Study, assignment: Assignment, throughput: float) -> None:
    built = space(SMALL_SPACE)
    study.add(trial(len(study.trials), point(1, throughput, 10), parameters=built.normalize(assignment)), built)


def test_what_decides_is_most_important(study: Study) -> None:
    values = itertools.cycle([(count, size) for count in (1, 2) for size in (8, 64)])
    for number in range(16):
        count, size = next(values)
        _add(
            study,
            {"instance_group.count": count, "max_batch_size": size, "dynamic_batching": "on"},
            100 * count + number / 10,
        )
    found = importances(study)
    assert found.reason == ""
    assert found.trials == 16
    assert sum(found.shares.values()) == pytest.approx(1)
    assert next(iter(found.shares)) == "instance_group.count"
    assert found.shares["instance_group.count"] > 0.7
    assert "dynamic_batching" not in found.shares  # it has not varied


def test_few_trials_say_nothing(study: Study) -> None:
    for number in range(FEWEST_TRIALS - 1):
        _add(study, {"instance_group.count": 1 + number % 2}, 100 + number)
    built = space(SMALL_SPACE)
    study.add(trial(len(study.trials), failure=Cause.CRASHED, parameters=built.baseline), built)
    assert importances(study).reason == "needs 10 trials that did not fail, got 9"


def test_equal_trials_say_nothing(study: Study) -> None:
    for number in range(FEWEST_TRIALS):
        _add(study, {"instance_group.count": 1 + number % 2}, 100)
    assert importances(study).reason == "all trials have equal parameters or equal results"
