"""What the finals store is in the files at once, so that a kill leaves none that say something else."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any, cast

import pytest
from support.builders import identity, point, space, trial
from support.executors import FakeExecutor

from tuner.cluster.dispatcher import Dispatcher
from tuner.core.errors import Cause
from tuner.core.loads import Concurrency, Load
from tuner.jobs.model_finals import ModelFinals
from tuner.jobs.progress import Progress
from tuner.jobs.run_context import RunContext
from tuner.measure.plan import result_of
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.work import Failure, Limits, Loads, Outcome, TrialProgress, TrialTerms, Work
from tuner.options.tune_job import TuneJob
from tuner.recommend.certified import CertifiedRate
from tuner.recommend.verification import Verification
from tuner.results.result_files import write_results
from tuner.stats.slo_verdict import SLOTest
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


class KilledError(BaseException):
    """As the process would be."""


@pytest.mark.parametrize("rounds", [1, 2, 3, 5, 8])
def test_a_kill_while_verifying_leaves_files_that_agree_with_the_study(tmp_path: Path, rounds: int) -> None:
    run, built = RunFolder(tmp_path), space()
    study = Study.create_or_resume(run.database, identity())
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    for number, (throughput, count) in enumerate(((300, 2), (290, 4)), start=1):
        parameters = built.normalize({"instance_group.count": count})
        study.add(trial(number, point(8, throughput, 20), parameters=parameters), built)
    write_results(run, study)
    launches, counted = itertools.count(1), list[None]()

    def again(work: Work, *_: object) -> Outcome:
        if (number := next(launches)) > rounds:
            raise KilledError
        # What looked best is no better than the baseline.
        assert isinstance(work.plan, Loads)
        return Outcome(points=tuple(point(int(load.level), 90.0 + number, 20) for load in work.plan.loads))

    anything = cast("Any", None)
    terms = TrialTerms("mlp", anything, LevelRules(slo=study.identity.slo), max_concurrency=8)
    job = TuneJob.make({"repository": str(tmp_path), "slo": {"p99": "25ms"}})
    executor = FakeExecutor(again)
    finals = ModelFinals(
        RunContext(job, run, anything, executor, Progress()),
        study,
        terms,
        Dispatcher(executor),
        tmp_path,
        lambda _: anything,
        lambda: _write(run, study),
        lambda: (),
        lambda: counted.append(None),
    )
    with pytest.raises(KilledError):
        finals.verify(until=1e12)
    assert len(counted) == rounds + 1  # the time before each launch, of the one that was killed, too
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


class Certifying:
    """Certifies the baseline; what that truly does is known.

    Args:
        holds: Requests/s up to which it holds the SLO; it keeps up with any rate.
        fails: Whether the launch fails.
        verified: Whether it was measured again before.
    """

    def __init__(
        self,
        folder: Path,
        *,
        holds: float = 80.0,
        fails: bool = False,
        verified: bool = True,
    ) -> None:
        self._run, self._holds, self._fails = RunFolder(folder), holds, fails
        self.study = Study.create_or_resume(self._run.database, identity())
        built = space()
        self.study.add(trial(0, point(8, 100, 10), parameters=built.baseline), built)
        if verified:
            test = SLOTest(percentile="p99", limit_ms=25.0, requests=5_000, over=0, design_effect=1.0)
            rounds = tuple(point(8, 100, 10).model_copy(update={"limits": (test,)}) for _ in range(3))
            self.study.add_verified([Verification(trial=0, load=Concurrency(8), rounds=rounds, numbers=(1, 2, 3))])
        self.launches = self.measured = 0
        self.counted: list[int] = []

    def certify(self, *, until: float = 1e12) -> CertifiedRate | None:
        anything = cast("Any", None)
        job = TuneJob.make({"repository": "/models", "slo": {"p99": "25ms"}})
        terms = TrialTerms("mlp", anything, LevelRules(slo=self.study.identity.slo), max_concurrency=8)
        executor = FakeExecutor(self._launched)
        finals = ModelFinals(
            RunContext(job, self._run, anything, executor, Progress()),
            self.study,
            terms,
            Dispatcher(executor),
            Path(),
            lambda by: Limits(1.0, 1.0, by),
            lambda: _write(self._run, self.study),
            lambda: (),
            lambda: self.counted.append(self.measured),
        )
        finals.certify(until=until)
        return Study.load(self._run.database, "mlp").certified

    def _launched(self, work: Work, _folder: Path, progress: TrialProgress) -> Outcome:
        self.launches += 1
        if self._fails:
            return Outcome(failure=Failure(cause=Cause.CRASHED, message="it died"))
        points = list[OperatingPoint]()

        def measure(load: Load) -> OperatingPoint:
            progress.level_began(load)
            points.append(self._measure(load))
            return points[-1]

        plan = work.plan.plan(work.terms, cast("Any", None), math.inf)
        return Outcome(result=result_of(plan, measure), points=tuple(points))

    def _measure(self, load: Load) -> OperatingPoint:
        self.measured += 1
        over = 0 if load.level <= self._holds else 500
        test = SLOTest(percentile="p99", limit_ms=25.0, requests=5_000, over=over, design_effect=1.0)
        told = point(load, load.level, 50 if over else 10, kept_up=True)
        return told.model_copy(update={"limits": (test,)})

    @property
    def front(self) -> dict[str, Any]:
        best: dict[str, Any] = json.loads((self._run.model("mlp") / "front.json").read_text())["best"]
        return best


def test_the_rate_that_holds_is_certified_once(tmp_path: Path) -> None:
    certifying = Certifying(tmp_path)
    told = certifying.certify()
    assert told is not None
    assert told.point is not None
    assert (told.trial, told.load, told.launched, told.reason) == (0, Concurrency(8), True, None)
    assert 72 < told.point.load.level <= 80
    assert certifying.front["certified_rate"]["request_rate"] == told.point.load.level
    assert certifying.front["not_certified"] is None
    certifying.certify()
    assert certifying.launches == 1


def test_the_time_of_certifying_is_counted_before_its_launch_and_each_level(tmp_path: Path) -> None:
    certifying = Certifying(tmp_path)
    certifying.certify()
    assert certifying.measured > 1
    assert certifying.counted == [0, *range(certifying.measured)]


@pytest.mark.parametrize(
    ("about", "until", "reason"),
    [
        (
            {"holds": 1.0},
            1e12,
            r"no rate tried \([\d.]+ to 90 requests/s\) was shown to hold p99 <= 25 ms \(99 % confidence\)",
        ),
        ({"fails": True}, 1e12, "crashed: it died"),
        ({"verified": False}, 1e12, "no time left to verify it"),
        ({}, 0.0, "no time left"),
    ],
)
def test_why_no_rate_is_certified(tmp_path: Path, about: dict[str, Any], until: float, reason: str) -> None:
    certifying = Certifying(tmp_path, **about)
    told = certifying.certify(until=until)
    assert told is not None
    assert told.point is None
    assert re.fullmatch(reason, told.reason or "")
    assert told.launched is ("no time" not in reason)
    assert certifying.launches == told.launched
    assert certifying.front["not_certified"] == told.reason
    assert certifying.front["certified_rate"] is None
