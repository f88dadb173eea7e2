from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import identity, point, space, trial

from tuner.errors import Cause
from tuner.run_folder import RunFolder
from tuner.search.study import Study


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def study(run: RunFolder) -> Study:
    """A baseline, a better candidate, and one that failed, under p99 <= 25 ms."""
    built = space()
    study = Study.create_or_resume(run.database, identity())
    better = built.settle({"dynamic_batching": "on", "max_batch_size": 64, "instance_group.count": 2})
    study.add(trial(0, point(1, 100, 10), point(2, 110, 20), parameters=built.baseline), built)
    config = built.candidate(better).config.text
    study.add(
        trial(1, point(1, 90, 12), point(8, 400, 20), point(16, 500, 40), parameters=better, config=config), built
    )
    study.add(trial(2, failure=Cause.CRASHED, parameters=built.settle({"instance_group.count": 4})), built)
    return study
