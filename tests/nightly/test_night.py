"""A night as a whole, with the part of each model made up."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.nights import jobs_file, night

from tuner.core.errors import InterruptedRunError, JobError, TuningError
from tuner.core.interrupts import ignore_what_ends, put_off
from tuner.core.lock import locked
from tuner.nightly.history import History, Night
from tuner.nightly.jobs import JobsFile
from tuner.nightly.model_night import NightContext
from tuner.nightly.night import run_night
from tuner.nightly.outcome import NightReport
from tuner.nightly.tasks import Task, tasks_of
from tuner.testing.repositories import ModelRepositoryFactory

Part = Callable[[Task, NightContext], Night]


class Nights:
    """Runs nights of a repository with the models `a`, `b` and `c`."""

    def __init__(self, folder: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.work = folder / "work"
        self.said: list[str] = []
        self._folder, self._repository, self._monkeypatch = folder, repository, monkeypatch

    def run(self, part: Part, **settings: Any) -> NightReport:
        self._monkeypatch.setattr(
            "tuner.nightly.night.run_model_night", lambda task, night_context, _: part(task, night_context)
        )
        job = {"repository": str(self._repository), "budget": "60s"}
        path = jobs_file(self._folder / "jobs.yaml", job, work=str(self.work), **settings)
        file = JobsFile.read(path)
        return run_night(file, tasks_of(file, path, print), self.said.append)

    @property
    def folders(self) -> list[Path]:
        return sorted((self.work / "nights").iterdir())

    def recorded(self) -> list[str]:
        with History.opened(str(self.work / "history.db")) as history:
            return [f"{each.model} {each.outcome}" for each in history.nights()]


@pytest.fixture
def nights(
    model_repository: ModelRepositoryFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Nights]:
    for name in ("a", "b", "c"):
        model_repository.add("slow", name=name)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Nights(tmp_path, model_repository.path, monkeypatch)
    for number, handler in before.items():
        assert signal.getsignal(number) == handler


def kept(task: Task, night_context: NightContext) -> Night:
    return night(
        night=night_context.night,
        model=task.model.name,
        repository=task.repository_key,
        folder=str(night_context.folder),
    )


def test_each_model_has_its_part(nights: Nights) -> None:
    report = nights.run(kept)
    assert (report.outcome, report.exit_code) == ("kept", 0)
    assert [job.model for job in report.jobs] == ["a", "b", "c"]
    assert nights.recorded() == ["a kept", "b kept", "c kept"]
    (folder,) = nights.folders
    assert json.loads((folder / "report.json").read_text())["jobs"][2]["model"] == "c"


def test_one_that_fails_leaves_the_others_alone(nights: Nights) -> None:
    def part(task: Task, night_context: NightContext) -> Night:
        if task.model.name == "a":
            raise TuningError("model 'a': the baseline failed:\nno")
        if task.model.name == "b":
            raise ZeroDivisionError("a bug")
        return kept(task, night_context)

    report = nights.run(part)
    assert report.exit_code == 1
    assert nights.recorded() == ["a failed", "b failed", "c kept"]
    assert report.jobs[0].reason == "model 'a': the baseline failed: no"
    log = nights.folders[0] / "model_repository/b/error.log"
    assert report.jobs[1].reason == f"unexpected ZeroDivisionError: a bug; the log is {log}"
    assert "ZeroDivisionError: a bug" in log.read_text()


@pytest.fixture
def ended_as_the_command_does(nights: Nights) -> Iterator[Nights]:
    """SIGTERM interrupts once, as `tritontune` has it."""

    def end(*_: object) -> None:
        ignore_what_ends()
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in numbers}
    yield nights
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("ended_as_the_command_does")
@pytest.mark.parametrize("as_error", [True, False])
def test_sigterm_ends_it_with_a_report(nights: Nights, *, as_error: bool) -> None:
    def part(task: Task, night_context: NightContext) -> Night:
        if task.model.name == "b":
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                if as_error:
                    raise InterruptedRunError("go on with --resume") from None
                raise
        return kept(task, night_context)

    report = nights.run(part)
    assert report.exit_code == 1
    assert nights.recorded() == ["a kept", "b failed", "c failed"]
    assert {job.reason for job in report.jobs[1:]} == {"the night was interrupted"}
    assert (nights.folders[0] / "report.json").is_file()


@pytest.mark.usefixtures("ended_as_the_command_does")
def test_what_was_done_with_a_model_is_told_before_sigterm_ends_the_night(nights: Nights) -> None:
    def part(task: Task, night_context: NightContext) -> Night:
        night_context.until_reported.enter_context(put_off())
        if task.model.name == "b":
            signal.raise_signal(signal.SIGTERM)
        return kept(task, night_context)

    assert nights.run(part).exit_code == 1
    assert nights.recorded() == ["a kept", "b kept", "c failed"]


def test_it_ends_within_its_window(nights: Nights) -> None:
    def part(task: Task, night_context: NightContext) -> Night:
        if task.model.name == "b":
            assert threading.Event().wait(60.0), "no alarm came"
        return kept(task, night_context)

    report = _with_window(nights, part, 0.5)
    assert nights.recorded() == ["a kept", "b failed", "c failed"]
    assert {job.reason for job in report.jobs[1:]} == {"the window was over"}


def _with_window(nights: Nights, part: Part, seconds: float) -> NightReport:
    """A window as short as that is none that a file may ask for."""
    original = JobsFile.read

    def read(path: Path) -> JobsFile:
        return original(path).model_copy(update={"window": seconds})

    nights._monkeypatch.setattr(JobsFile, "read", read)
    nights._monkeypatch.setattr("tuner.nightly.tasks._check_window", lambda *_: None)
    nights._monkeypatch.setattr("tuner.nightly.night._LEAST_SHARE", 0.0)
    return nights.run(part)


def test_budgets_are_shortened_and_late_jobs_left_out(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, budgets = [0.0], list[float]()
    monkeypatch.setattr("tuner.nightly.night.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def part(task: Task, night_context: NightContext) -> Night:
        budgets.append(night_context.budget)
        clock[0] += 130.0
        return kept(task, night_context)

    report = nights.run(part, window="270s")
    # 1.5 times 60 s for each of the three fits; then 140 s are left for two, and 10 s for one.
    assert budgets == pytest.approx([60.0, 60.0 * 140 / 180])
    assert report.notes == ("model_repository/b: budget cut to 78% to end within the window",)
    assert report.jobs[2].reason == "skipped: 10s of the window was left"
    assert report.exit_code == 1


def test_two_nights_at_once_are_none(nights: Nights) -> None:
    nights.work.mkdir()
    with (
        locked(nights.work, option="work", holder="another night"),
        pytest.raises(JobError, match="in use by another night"),
    ):
        nights.run(kept)
    assert not (nights.work / "nights").exists()


def test_old_nights_are_removed(nights: Nights) -> None:
    seen = []
    for _ in range(4):
        nights.run(kept, keep_nights=2)
        seen.append(nights.folders[-1])
    assert nights.folders == seen[2:]
    assert len(nights.recorded()) == 12


def test_what_killed_nights_left_is_cleared_away(nights: Nights) -> None:
    empty, some = nights.work / "nights/20260101-000000", nights.work / "nights/20260102-000000"
    (empty / "model_repository/a/.work/repository").mkdir(parents=True)
    (some / "model_repository/a/.work/repository").mkdir(parents=True)
    (some / "model_repository/a/study.db").touch()
    report = nights.run(kept)
    assert report.notes[0].startswith(
        "removed the folder of night 20260101-000000: it was killed before it had measured anything"
    )
    assert not empty.exists()
    assert not (some / "model_repository/a/.work").exists()
    assert (some / "model_repository/a/study.db").exists()


def test_who_cannot_be_told_is_in_the_report(nights: Nights) -> None:
    report = nights.run(kept, notify=[{"file": "/proc/nowhere/told"}])
    assert report.exit_code == 0
    (note,) = report.notes
    assert note.startswith("notification failed: /proc/nowhere/told")
    assert json.loads((nights.folders[0] / "report.json").read_text())["notes"] == [note]


def test_a_history_that_breaks_midway_loses_no_result(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_self: History, _night: Night) -> None:
        raise JobError("history: x: connection refused")

    monkeypatch.setattr(History, "add", fails)
    report = nights.run(kept)
    assert report.exit_code == 1
    assert report.jobs[0].reason.endswith("; not recorded: history: x: connection refused")
    assert (nights.folders[0] / "report.json").is_file()


def test_metrics_are_written(nights: Nights, tmp_path: Path) -> None:
    nights.run(kept, prometheus=str(tmp_path / "t.prom"))
    assert 'tritontune_nightly_regression{model="b"' in (tmp_path / "t.prom").read_text()
