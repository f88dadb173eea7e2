"""What the finals store is in the files at once, so that a kill leaves none that say something else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.builders import identity, point, space, trial

from tuner.core.errors import Cause, ServerError
from tuner.core.loads import Concurrency, Load
from tuner.jobs import model_finals
from tuner.jobs.model_finals import ModelFinals
from tuner.jobs.progress import Progress
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.trial import TrialContext
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
def test_a_kill_while_verifying_leaves_files_that_agree_with_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    run, built = RunFolder(tmp_path), space()
    study = Study.create_or_resume(run.database, identity())
    study.add(trial(0, point(1, 100, 10), parameters=built.baseline), built)
    for number, (throughput, count) in enumerate(((300, 2), (290, 4)), start=1):
        parameters = built.normalize({"instance_group.count": count})
        study.add(trial(number, point(8, throughput, 20), parameters=parameters), built)
    write_results(run, study)
    launches, counted = itertools.count(1), list[None]()

    def again(
        _trial_context: TrialContext, _config: str, loads: Sequence[Load], *_: object, **__: object
    ) -> Iterator[OperatingPoint]:
        if (number := next(launches)) > rounds:
            raise KilledError
        # What looked best is no better than the baseline.
        return (point(int(load.level), 90.0 + number, 20) for load in loads)

    monkeypatch.setattr(model_finals, "relaunch_and_measure", again)
    anything = cast("Any", None)
    trial_context = TrialContext(
        launcher=anything,
        repository=anything,
        model="mlp",
        options=anything,
        rules=LevelRules(slo=study.identity.slo),
        max_concurrency=8,
    )
    job = TuneJob.make({"repository": str(tmp_path), "slo": {"p99": "25ms"}})
    finals = ModelFinals(
        job,
        study,
        trial_context,
        tmp_path,
        lambda _: anything,
        lambda: _write(run, study),
        Progress(),
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
        monkeypatch: pytest.MonkeyPatch,
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
        monkeypatch.setattr(model_finals, "relaunch", self._launched)

    def certify(self, *, until: float = 1e12) -> CertifiedRate | None:
        anything = cast("Any", None)
        job = TuneJob.make({"repository": "/models", "slo": {"p99": "25ms"}})
        trial_context = TrialContext(
            launcher=anything,
            repository=anything,
            model="mlp",
            options=anything,
            rules=LevelRules(slo=self.study.identity.slo),
            max_concurrency=8,
        )
        finals = ModelFinals(
            job,
            self.study,
            trial_context,
            Path(),
            lambda _: anything,
            lambda: _write(self._run, self.study),
            Progress(),
            lambda: self.counted.append(self.measured),
        )
        finals.certify(until=until)
        return Study.load(self._run.database, "mlp").certified

    @contextmanager
    def _launched(self, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        self.launches += 1
        if self._fails:
            raise ServerError("it died", cause=Cause.CRASHED)
        yield SimpleNamespace(measure=self._measure)

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


def test_the_rate_that_holds_is_certified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certifying = Certifying(tmp_path, monkeypatch)
    told = certifying.certify()
    assert told is not None
    assert told.point is not None
    assert (told.trial, told.load, told.launched, told.reason) == (0, Concurrency(8), True, None)
    assert 72 < told.point.load.level <= 80
    assert certifying.front["certified_rate"]["request_rate"] == told.point.load.level
    assert certifying.front["not_certified"] is None
    certifying.certify()
    assert certifying.launches == 1


def test_the_time_of_certifying_is_counted_before_its_launch_and_each_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certifying = Certifying(tmp_path, monkeypatch)
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
def test_why_no_rate_is_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], until: float, reason: str
) -> None:
    certifying = Certifying(tmp_path, monkeypatch, **about)
    told = certifying.certify(until=until)
    assert told is not None
    assert told.point is None
    assert re.fullmatch(reason, told.reason or "")
    assert told.launched is ("no time" not in reason)
    assert certifying.launches == told.launched
    assert certifying.front["not_certified"] == told.reason
    assert certifying.front["certified_rate"] is None
