from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import identity, point, space, trial

from tuner.analysis.effects import field_effects
from tuner.core.errors import Cause
from tuner.core.loads import Concurrency
from tuner.jobs.explain import explain
from tuner.jobs.progress import Progress
from tuner.measure.points import OperatingPoint
from tuner.space.candidate import Assignment
from tuner.study.study import Study

BUILT = space()
BEST: Assignment = {"dynamic_batching": "on", "max_batch_size": 64, "instance_group.count": 2}


class Bench(Progress):
    """Knows what each candidate would give, and keeps count of what is asked of it. Real launches are `tune`'s test."""

    def __init__(self, folder: Path, *, best: Assignment = BEST) -> None:
        self.study = Study.create_or_resume(folder / "study.db", identity())
        self.launched: list[tuple[Assignment, Concurrency | None]] = []
        self.notes: list[str] = []
        self.phases: list[str] = []
        self.verified = 0
        self.refused: Assignment | None = None
        self.add({}, point(1, 100, 10))
        self.add(best, point(8, 400, 20))

    def add(self, wanted: Assignment, *points: OperatingPoint, failure: Cause | None = None) -> None:
        number = len(self.study.trials)
        self.study.add(trial(number, *points, parameters=BUILT.normalize(wanted), failure=failure), BUILT)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase_began(self, phase: str) -> None:
        self.phases.append(phase)

    def run_without(self, wanted: Assignment, load: Concurrency | None) -> None:
        self.launched.append((wanted, load))
        if wanted != self.refused:
            self.add(wanted, self.gives(wanted))

    def gives(self, wanted: Assignment) -> OperatingPoint:
        return point(8, 100 if wanted["dynamic_batching"] == "off" else 300, 20)

    def verify(self) -> None:
        self.verified += 1

    def explain(self) -> None:
        explain(self.study, run_without=self.run_without, verify=self.verify, progress=self)

    @property
    def unknown(self) -> list[str]:
        best = self.study.recommendation.best
        assert best is not None
        return [effect.name for effect in field_effects(self.study, best) if effect.trial is None]


def test_each_change_is_left_out_once_at_the_bests_load(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.explain()
    assert bench.launched == [
        ({"dynamic_batching": "off", "instance_group.count": 2}, Concurrency(8)),
        (BUILT.normalize({**BEST, "max_batch_size": 32}), Concurrency(8)),
        (BUILT.normalize({**BEST, "instance_group.count": 1}), Concurrency(8)),
    ]
    assert bench.notes == [
        "explaining trial 1: without dynamic_batching, max_batch_size",
        "explaining trial 1: without max_batch_size",
        "explaining trial 1: without instance_group.count",
    ]
    assert bench.unknown == []
    assert bench.verified == 1
    assert set(bench.phases) == {"explanation"}


def test_a_resumed_run_launches_only_what_is_missing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.explain()
    bench.launched.clear()
    bench.explain()
    assert bench.launched == []


def test_what_trials_tell_already_is_not_launched(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.add({**BEST, "instance_group.count": 1}, point(8, 300, 20))
    bench.add({"instance_group.count": 2}, failure=Cause.CRASHED)
    bench.explain()
    assert [wanted for wanted, _ in bench.launched] == [BUILT.normalize({**BEST, "max_batch_size": 32})]


def test_a_single_change_is_known_from_the_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path, best={"instance_group.count": 2})
    bench.explain()
    assert (bench.launched, bench.verified) == ([], 0)


def test_what_surely_does_not_fit_is_asked_for_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.refused = BUILT.normalize({**BEST, "max_batch_size": 32})
    bench.explain()
    assert len(bench.launched) == 3
    assert bench.unknown == ["max_batch_size"]


def test_one_that_is_better_without_a_change_is_verified_and_explained_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    smaller = BUILT.normalize({**BEST, "max_batch_size": 32})
    monkeypatch.setattr(bench, "gives", lambda wanted: point(16, 900, 20) if wanted == smaller else point(8, 300, 20))
    bench.explain()
    best = bench.study.recommendation.best
    assert best is not None
    assert best.trial.parameters == smaller
    assert bench.unknown == []
    # The new best without its instances had not been launched for the old one.
    assert bench.launched[-1] == (BUILT.normalize({"dynamic_batching": "on"}), Concurrency(16))
    assert bench.verified == 2


def test_where_the_config_as_it_is_does_best_that_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    alone = Study.create_or_resume(tmp_path / "alone.db", identity())
    alone.add(trial(0, point(), parameters=BUILT.baseline), BUILT)
    explain(alone, run_without=bench.run_without, verify=bench.verify, progress=bench)
    assert bench.notes == ["nothing to explain: the baseline is the best config"]


def test_nothing_holds_so_nothing_is_explained(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    strict = Study.create_or_resume(tmp_path / "strict.db", identity(slo={"p99": "1ms"}))
    strict.add(trial(0, point(), parameters=BUILT.baseline), BUILT)
    explain(strict, run_without=bench.run_without, verify=bench.verify, progress=bench)
    assert (bench.launched, bench.verified) == ([], 0)
