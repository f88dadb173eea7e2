"""How a model's budget is spent, over interruptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.builders import identity, point, space, trial
from support.executors import FakeExecutor

from tuner.core.errors import Cause
from tuner.jobs.model_tuning import ModelTuning
from tuner.jobs.progress import Progress
from tuner.jobs.run_context import RunContext
from tuner.measure.work import Failure, Outcome, Work
from tuner.options.tune_job import TuneJob
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study


class KilledError(BaseException):
    """As the process would be."""


class Runs:
    """Runs of one model, each of which goes on where the last one was killed; its finals use all the time they get.

    A round of verifying takes 2 s. The search takes 70 s.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._out = RunFolder(folder)
        self._now_s = 1_000.0
        self.verified_s = self.certified_s = 0.0
        self._killed_after_s = 0.0
        self._stored: Callable[[], None] = lambda: None
        self._spent: Callable[[], None] = lambda: None
        monkeypatch.setattr("tuner.jobs.model_tuning.ModelFinals", self._finals)
        monkeypatch.setattr("tuner.jobs.model_tuning.write_results", lambda *_: None)
        monkeypatch.setattr(ModelTuning, "_search", lambda tuning: self._search(tuning._study))

    def run(self, *, budget_s: float = 100.0, killed_after_s: float = 1e6) -> Study:
        """Run, or resume, and be killed after so much verifying."""
        anything = cast("Any", None)
        self.verified_s = self.certified_s = 0.0
        self._killed_after_s = killed_after_s
        study = Study.create_or_resume(self._out.database, identity())
        job = TuneJob.make({"repository": "/models", "slo": {"p99": "25ms"}, "budget": f"{budget_s}s"})
        context = RunContext(job, self._out, anything, FakeExecutor(anything), Progress())
        tuning = ModelTuning(context, cast("Any", SimpleNamespace(name="mlp")), study, now=lambda: self._now_s)
        try:
            tuning.run()
        except KilledError:
            self._now_s += 1e4  # until somebody resumes it
        return Study.load(self._out.database, "mlp")

    def _search(self, study: Study) -> str:
        if not study.trials:
            self._now_s += 70
            study.add(trial(0, point(1, 100, 10)).model_copy(update={"wall_s": 70.0}), space())
        return "it is over"

    def _finals(self, *about: Any) -> Any:
        self._stored, self._spent = about[6], about[8]
        return SimpleNamespace(verify=self._verify, certify=self._certify)

    def _verify(self, *, until: float) -> None:
        while self._now_s + 2 <= until:
            self._now_s += 2
            self.verified_s += 2
            if self.verified_s > self._killed_after_s:
                raise KilledError
            self._stored()

    def _certify(self, *, until: float) -> None:
        while self._now_s + 2 <= until:
            self._spent()
            self._now_s += 2
            self.certified_s += 2
            if self.verified_s + self.certified_s > self._killed_after_s:
                raise KilledError


def test_the_shares_of_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, monkeypatch)
    study = runs.run()
    assert (runs.verified_s, runs.certified_s) == (22, 8)
    assert study.took_s == pytest.approx(100)


def test_who_resumes_a_finished_run_has_no_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, monkeypatch)
    runs.run()
    study = runs.run()
    assert (runs.verified_s, runs.certified_s) == (0, 0)
    assert study.took_s == pytest.approx(100)


def test_a_larger_budget_is_what_it_is_larger_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, monkeypatch)
    runs.run()
    study = runs.run(budget_s=150.0)
    assert (runs.verified_s, runs.certified_s) == (38, 12)
    assert study.took_s == pytest.approx(150)


@pytest.mark.parametrize("killed_after_s", [2, 10, 20])
def test_a_kill_while_verifying_makes_none_of_it_free_but_the_last_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after_s: int
) -> None:
    runs = Runs(tmp_path, monkeypatch)
    study = runs.run(killed_after_s=killed_after_s)
    assert study.took_s == pytest.approx(70 + killed_after_s, abs=2.1)
    study = runs.run()
    assert runs.verified_s == pytest.approx(22 - killed_after_s, abs=2.1)
    assert study.took_s == pytest.approx(100, abs=2.1)


def test_a_kill_while_certifying_makes_none_of_it_free_but_the_last_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(tmp_path, monkeypatch)
    study = runs.run(killed_after_s=22 + 4)
    assert study.took_s == pytest.approx(70 + 22 + 4, abs=2.1)
    study = runs.run()
    assert runs.certified_s == pytest.approx(8 - 4, abs=2.1)
    assert study.took_s == pytest.approx(100, abs=2.1)


class Searches:
    """A search whose baseline took 6 s of 20 s, and whose first candidate then launches for as long as it may."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, failure: Cause) -> None:
        self.out, self.notes, self._now_s, self._failure = RunFolder(folder), list[str](), 1_000.0, failure
        self.study = Study.create_or_resume(self.out.database, identity())
        self.study.add(trial(0, point(1, 100, 10)), space())
        monkeypatch.setattr("tuner.jobs.model_tuning.write_results", lambda *_: self.study.recommendation)
        monkeypatch.setattr(ModelTuning, "_space", lambda *_: space())
        monkeypatch.setattr(ModelTuning, "_refusal", lambda *_: None)
        outputs = SimpleNamespace(recall=lambda: True, of_candidate=lambda *_: None)
        monkeypatch.setattr("tuner.jobs.model_tuning.OutputCheck", lambda *_: outputs)
        anything = cast("Any", None)
        options = {"repository": "/m", "slo": {"p99": "25ms"}, "budget": "20s", "verify": False, "sampler": "random"}
        job = TuneJob.make(options)
        progress = Progress()
        monkeypatch.setattr(progress, "note", self.notes.append)
        context = RunContext(job, self.out, anything, FakeExecutor(self._carry_out), progress)
        model = cast("Any", SimpleNamespace(name="mlp", config=None))
        self.tuning = ModelTuning(context, model, self.study, now=lambda: self._now_s)

    def _carry_out(self, work: Work, folder: Path, _progress: object) -> Outcome:
        folder.mkdir(parents=True)
        self._now_s += work.limits.launch_s
        return Outcome(failure=Failure(cause=self._failure, message="it failed"))


@pytest.mark.parametrize("cause", [Cause.TIMED_OUT, Cause.HUNG])
def test_a_launch_ends_with_the_budget_and_is_no_trial_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: Cause
) -> None:
    searches = Searches(tmp_path, monkeypatch, cause)
    assert searches.tuning._search() == "the budget is spent"
    assert searches._now_s == pytest.approx(1_000 + 20 - 6)
    assert len(Study.load(searches.out.database, "mlp").trials) == 1
    assert searches.notes[-1] == "trial 1 does not count: the budget ended before its first answer"
    assert not searches.out.trial("mlp", 1).exists()


def test_what_crashes_at_the_end_of_the_budget_is_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = Searches(tmp_path, monkeypatch, Cause.CRASHED)
    assert searches.tuning._search() == "the budget is spent"
    assert len(searches.study.trials) == 2


@pytest.mark.parametrize(("budget", "build_s"), [("100s", 30.0 + 10 * 1.5), ("1000s", 300.0), ("4h", 900.0)])
def test_a_launch_that_builds_engines_gets_a_share_of_the_budget(tmp_path: Path, budget: str, build_s: float) -> None:
    anything = cast("Any", None)
    out = RunFolder(tmp_path)
    study = Study.create_or_resume(out.database, identity())
    study.add(trial(0, point(1, 100, 10)), space())
    job = TuneJob.make({"repository": "/models", "budget": budget})
    context = RunContext(job, out, anything, FakeExecutor(anything), Progress())
    tuning = ModelTuning(context, cast("Any", SimpleNamespace(name="mlp")), study)
    assert tuning._budget.limits(until=0.0).launch_s == 30.0 + 10 * 1.5
    assert tuning._budget.limits(until=0.0, slow=True).launch_s == build_s
