"""What the finals store is in the files at once, so that a kill leaves none that say something else."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, cast

import pytest
from support.builders import identity, point, space, trial

from tuner import model_finals
from tuner.job import TuneJob
from tuner.load.loads import Load
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.model_finals import ModelFinals
from tuner.report.files import write_results
from tuner.run_folder import RunFolder
from tuner.search.study import Study
from tuner.trial import Bench


class KilledError(BaseException):
    """As the process would be."""


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 8])
def test_a_kill_while_verifying_leaves_files_that_agree_with_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    run, built = RunFolder(tmp_path), space()
    study = Study.create_or_resume(run.database, identity())
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    for number, (throughput, count) in enumerate(((300, 2), (290, 4)), start=1):
        parameters = built.settle({"instance_group.count": count})
        study.add(trial(number, point(8, throughput, 20), parameters=parameters), built)
    write_results(run, study)
    launches = itertools.count(1)

    def again(_bench: Bench, _config: str, load: Load, *_: object, **__: object) -> OperatingPoint:
        if (number := next(launches)) > rounds:
            raise KilledError
        # What looked best is no better than the config as it is.
        return point(int(load.level), 90.0 + number, 20)

    monkeypatch.setattr(model_finals, "measure_again", again)
    anything = cast("Any", None)
    bench = Bench(
        launcher=anything,
        repository=anything,
        model="mlp",
        options=anything,
        slo=study.identity.slo,
        rules=LevelRules(),
        max_concurrency=8,
    )
    job = TuneJob.make({"repository": str(tmp_path), "slo": {"p99": "25ms"}})
    finals = ModelFinals(
        job, study, bench, tmp_path, lambda _: anything, lambda: _write(run, study), note=lambda _: None
    )
    with pytest.raises(KilledError):
        finals.verify(until=1e12)
    stored = Study.load(run.database, "mlp")
    front = json.loads((run.model("mlp") / "front.json").read_text())
    best, gain = stored.recommendation.best, stored.recommendation.gain
    assert best is not None
    assert gain is not None
    assert stored.verified
    assert (front["best"]["trial"], front["best"]["verified"]) == (best.trial.number, best.verified)
    assert front["best"]["gain"]["throughput"]["value"] == pytest.approx(gain.value, rel=1e-4)
    assert gain.value >= 1


def _write(run: RunFolder, study: Study) -> None:
    write_results(run, study)
