"""How a model's budget is spent, over interruptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.builders import identity, point, space, trial

from tuner.job import TuneJob
from tuner.model_tuning import ModelTuning, Workshop
from tuner.progress import Progress
from tuner.run_folder import RunFolder
from tuner.search.study import Study


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
        monkeypatch.setattr("tuner.model_tuning.ModelFinals", self._finals)
        monkeypatch.setattr("tuner.model_tuning.write_results", lambda *_: None)
        monkeypatch.setattr(ModelTuning, "_search", lambda tuning: self._search(tuning._study))

    def run(self, *, budget_s: float = 100.0, killed_after_s: float = 1e6) -> Study:
        """Run, or resume, and be killed after so much verifying."""
        anything = cast("Any", None)
        self.verified_s = self.certified_s = 0.0
        self._killed_after_s = killed_after_s
        study = Study.create_or_resume(self._out.database, identity())
        job = TuneJob.make({"repository": "/models", "slo": {"p99": "25ms"}, "budget": budget_s})
        staged = cast("Any", SimpleNamespace(path=self._out.path))
        shop = Workshop(job, self._out, anything, anything, anything, anything, staged, Progress())
        tuning = ModelTuning(shop, cast("Any", SimpleNamespace(name="mlp")), study, now=lambda: self._now_s)
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
        self._stored, self._spent = about[5], about[7]
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
