from __future__ import annotations

import errno
import inspect
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import pytest
from support.builders import point, space, trial
from support.study_fixtures import gpu_point, open_point, run, study, verified

from tuner.cluster.host_changes import HostChange
from tuner.core.errors import InterruptedRunError, JobError, SLOError, TuningError
from tuner.core.loads import Concurrency
from tuner.core.redaction import keep_secret
from tuner.jobs.event_log import EventLog
from tuner.jobs.event_progress import EventProgress
from tuner.jobs.events import (
    ArtifactWritten,
    BestChanged,
    FinalistEliminated,
    HostChanged,
    ModelBegan,
    ModelEnded,
    Noted,
    Numbered,
    PhaseBegan,
    PointMeasured,
    PointVerified,
    SlotChanged,
    StateChanged,
    TrialBegan,
    TrialDropped,
    TrialEnded,
    WorkRequeued,
)
from tuner.jobs.progress import ModelOutcome, Progress, Progresses, ProgressOfTrial
from tuner.recommend.verification import Verification
from tuner.results.points_json import point_json
from tuner.results.result_files import write_results
from tuner.servers.docker.pull import Pull
from tuner.study.run_folder import RunFolder
from tuner.study.study import Study

__all__ = ["gpu_point", "open_point", "run", "study", "verified"]

_Kind = TypeVar("_Kind", bound=Numbered)


class Told(Progress):
    """Remembers the calls of every method."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name == "calls":
            return super().__getattribute__(name)
        return lambda *_, **__: self.calls.append(name)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def events(run: RunFolder, notes: list[str]) -> EventProgress:
    return EventProgress.of_run(run, notes.append)


def _of(folder: Path, kind: type[_Kind]) -> list[_Kind]:
    return [event for event in EventLog(folder).read() if isinstance(event, kind)]


def _states(folder: Path) -> list[tuple[str, int, int | None]]:
    return [(event.state, event.attempt, event.exit_code) for event in _of(folder, StateChanged)]


def _fail(events: EventProgress, error: BaseException) -> None:
    """Run something that fails with an error after its folder was opened."""
    with events:
        events.run_began()
        raise error


def _begin(events: EventProgress, study: Study) -> None:
    events.run_began()
    events.model_began("mlp", study=study, budget_s=60.0)


def test_every_event_is_passed_on_to_all() -> None:
    told = Told(), Told()
    both = Progresses(*told)
    names = [name for name in vars(Progress) if not name.startswith("_")]
    for name in names:
        parameters = inspect.signature(getattr(both, name)).parameters.values()
        keywords = {each.name: None for each in parameters if each.kind is each.KEYWORD_ONLY}
        getattr(both, name)(*[None] * (len(parameters) - len(keywords)), **keywords)
    assert told[0].calls == told[1].calls == names


def test_an_eliminated_finalist_is_a_note_of_other_displays() -> None:
    class Notes(Progress):
        def note(self, text: str) -> None:
            assert text == "eliminated trial 3 at concurrency 8: failed"

    Notes().eliminated(3, Concurrency(8), "failed")


def test_a_run_writes_its_states(run: RunFolder, events: EventProgress) -> None:
    with events:
        events.note("before the folder is open")
        assert not run.events.exists()
        events.run_began()
    assert _states(run.path) == [("starting", 1, None), ("running", 1, None), ("succeeded", 1, 0)]
    first, note, *_ = EventLog(run.path).read()
    assert isinstance(note, Noted)
    assert first.at <= note.at


def test_a_run_that_never_began_writes_nothing(run: RunFolder, events: EventProgress) -> None:
    with suppress(JobError), events:
        events.note("hello")
        raise JobError("--out: in use by another run")
    assert not run.events.exists()


@pytest.mark.parametrize(
    ("error", "state", "exit_code", "reason"),
    [
        (SLOError("no candidate holds it"), "succeeded", 3, "no candidate holds it"),
        (TuningError("no Triton"), "failed", 1, "no Triton"),
        (JobError("--rate: wrong"), "failed", 2, "--rate: wrong"),
        (InterruptedRunError("interrupted; resume with: ..."), "cancelled", 130, "interrupted; resume with: ..."),
        (KeyboardInterrupt(), "cancelled", 130, "interrupted"),
        (SystemExit(0), "succeeded", 0, ""),
        (SystemExit(1), "failed", 1, "cnn: no weights"),
        (OSError(errno.ENOSPC, "No space left on device"), "failed", 1, "unexpected OSError: No space left on device"),
    ],
)
def test_the_final_state_tells_how_it_ended(  # noqa: PLR0917
    run: RunFolder, events: EventProgress, error: BaseException, state: str, exit_code: int, reason: str
) -> None:
    events.failures["cnn"] = TuningError("no weights")
    with pytest.raises(type(error)):
        _fail(events, error)
    last = EventLog(run.path).last_state()
    assert last is not None
    assert (last.state, last.exit_code, last.reason) == (state, exit_code, reason)


def test_the_final_state_may_be_told_before(run: RunFolder, events: EventProgress) -> None:
    with events:
        events.run_began()
        events.ended(20, "slower")
    assert _states(run.path)[-1] == ("succeeded", 1, 20)


def test_a_resumed_run_is_another_attempt(run: RunFolder, notes: list[str]) -> None:
    for _ in range(2):
        with EventProgress.of_run(run, notes.append) as events:
            events.run_began()
    with pytest.raises(KeyboardInterrupt):
        _fail(EventProgress.of_run(run, notes.append), KeyboardInterrupt())
    assert _states(run.path)[3:] == [
        ("starting", 2, None),
        ("running", 2, None),
        ("succeeded", 2, 0),
        ("starting", 3, None),
        ("running", 3, None),
        ("cancelled", 3, 130),
    ]
    assert [event.seq for event in EventLog(run.path).read()] == list(range(1, 10))


def test_the_process_of_a_job_goes_on_with_the_attempt_that_its_service_began(tmp_path: Path, notes: list[str]) -> None:
    log = EventLog(tmp_path)
    log.append(StateChanged, state="queued", attempt=2, reason="its process was lost")
    with EventProgress.of_job(tmp_path, notes.append) as events:
        events.note("pulling")
        events.run_began()
    assert _states(tmp_path) == [
        ("queued", 2, None),
        ("starting", 2, None),
        ("running", 2, None),
        ("succeeded", 2, 0),
    ]


def test_a_job_that_is_cancelled_while_it_starts_never_runs_and_its_service_writes_the_end(
    tmp_path: Path, notes: list[str]
) -> None:
    log = EventLog(tmp_path)
    log.append(StateChanged, state="starting", host="here")
    log.append(StateChanged, state="cancelling")
    with pytest.raises(KeyboardInterrupt):
        _fail(EventProgress.of_job(tmp_path, notes.append), KeyboardInterrupt())
    assert [state for state, _, _ in _states(tmp_path)] == ["starting", "cancelling"]


def test_a_trial_and_its_points_are_events(run: RunFolder, events: EventProgress, study: Study) -> None:
    study.identity  # noqa: B018 (the study is that of the fixture)
    with events:
        events.run_began()
        events.model_began("mlp", study=study, budget_s=60.0)
        events.phase_began("search")
        events.trial_began(3, "instance_group.count 8")
        events.level_began(Concurrency(4))
        events.point_measured(point(4, 410, 22))
        result = trial(3, point(4, 410, 22), parameters=space().normalize({"instance_group.count": 2}))
        result = result.model_copy(update={"host": "w2"})
        study.add(result, space())
        events.trial_ended(result, study.recommendation)
        events.phase_began("report")
    (began,) = _of(run.path, ModelBegan)
    assert (began.slo, began.percentile, began.objective, began.budget_s) == (
        "p99 <= 25 ms",
        "p99",
        "throughput",
        60.0,
    )
    assert [(event.phase, event.model) for event in _of(run.path, PhaseBegan)] == [("search", "mlp"), ("report", None)]
    (trial_began,) = _of(run.path, TrialBegan)
    assert (trial_began.model, trial_began.trial, trial_began.candidate) == ("mlp", 3, "instance_group.count 8")
    (measured,) = _of(run.path, PointMeasured)
    assert (measured.model, measured.trial) == ("mlp", 3)
    assert point_json(point(4, 410, 22)).items() <= measured.point.items()
    assert measured.point["objective_value"]["value"] == 410
    assert measured.point["answered"] is True
    # Trials that an earlier attempt stored without writing them come first.
    ended = _of(run.path, TrialEnded)
    assert [event.trial for event in ended] == [0, 1, 2, 3]
    assert ended[3].points == (measured.point,)
    assert ended[3].parameters["instance_group.count"] == 2
    assert [event.candidate for event in (ended[0], ended[3])] == ["the baseline", "instance_group.count 2"]
    assert (ended[2].cause, ended[2].failure, ended[2].last_words) == ("crashed", "it did not work", "E bad\n")
    assert [event.usable for event in ended] == [True, True, False, True]
    assert [event.host for event in ended] == ["", "", "", "w2"]


def test_trials_on_several_slots_tell_their_own_points(run: RunFolder, events: EventProgress, study: Study) -> None:
    with events:
        _begin(events, study)
        for number in (3, 4):
            events.trial_began(number, f"count {number}", f"w{number}/gpu:0")
        ProgressOfTrial(events, 3).point_measured(point(4, 410, 22))
        ProgressOfTrial(events, 4).point_measured(point(4, 420, 22))
        events.requeued("trial 4", "w4/gpu:0", "its node died", trial=4)
        events.trial_dropped(4, "lost twice")
        events.launch_began("w3/gpu:0", "round 2 of trial 3")
        events.launch_ended("w3/gpu:0")
    assert [(each.trial, each.slot) for each in _of(run.path, TrialBegan)] == [(3, "w3/gpu:0"), (4, "w4/gpu:0")]
    assert [each.trial for each in _of(run.path, PointMeasured)] == [3, 4]
    (lost,) = _of(run.path, WorkRequeued)
    assert (lost.model, lost.trial, lost.slot, lost.reason) == ("mlp", 4, "w4/gpu:0", "its node died")
    assert [(each.model, each.trial, each.reason) for each in _of(run.path, TrialDropped)] == [("mlp", 4, "lost twice")]
    assert [(each.slot, each.work) for each in _of(run.path, SlotChanged)] == [
        ("w3/gpu:0", "round 2 of trial 3"),
        ("w3/gpu:0", None),
    ]


def test_what_happens_to_hosts_is_an_event_without_secrets(run: RunFolder, events: EventProgress) -> None:
    keep_secret("token", "swordfish-42")
    with events:
        events.run_began()
        events.host_changed(HostChange("w1", "admitted", slots=("w1/gpu:0",), description="1 x H200", host_class="b"))
        events.host_changed(HostChange("w1", "lost", "token swordfish-42 refused"))
    admitted, lost = _of(run.path, HostChanged)
    assert (admitted.host, admitted.event, admitted.slots, admitted.host_class) == (
        "w1",
        "admitted",
        ("w1/gpu:0",),
        "b",
    )
    assert (lost.event, "swordfish" in lost.reason) == ("lost", False)


def test_threads_are_let_in_one_at_a_time() -> None:
    inside: list[str] = []
    most: list[int] = []

    class Slow(Progress):
        def note(self, text: str) -> None:
            inside.append(text)
            most.append(len(inside))
            time.sleep(0.002)
            inside.pop()

        def launch_ended(self, slot: str) -> None:
            shared.note(slot)  # what is told may tell more

    shared = Progresses(Slow())
    threads = [Thread(target=shared.launch_ended, args=(f"w{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (HostChange("w1", "admitted", slots=("a", "b"), description="2 x H200"), "was admitted with 2 slots: 2 x H200"),
        (HostChange("w1", "admitted", slots=("a",)), "was admitted with 1 slot"),
        (HostChange("w1", "left_out", "another GPU: A100"), "is left out: another GPU: A100"),
        (HostChange("w1", "drained", "its baseline drifts"), "gets no more work: its baseline drifts"),
        (HostChange("w1", "back"), "works again"),
    ],
)
def test_other_displays_note_what_happens_to_hosts_and_lost_work(change: HostChange, words: str) -> None:
    notes: list[str] = []

    class Notes(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    progress = Notes()
    progress.host_changed(change)
    progress.requeued("trial 4", "w1/gpu:0", "its node died", trial=4)
    progress.trial_dropped(4, "lost twice")
    assert notes == [
        f"host w1 {words}",
        "trial 4 starts again on another host: w1/gpu:0 was lost (its node died)",
        "trial 4 does not count: lost twice",
    ]


def test_the_best_is_told_when_it_changes(run: RunFolder, events: EventProgress, study: Study) -> None:
    with events:
        _begin(events, study)
        for load in (4, 8):
            result = trial(len(study.trials), point(load, 100 * load, 22), parameters=space().normalize({}))
            study.add(result, space())
            events.trial_ended(result, study.recommendation)
        events.results_changed(study.recommendation)
    told = [event.best for event in _of(run.path, BestChanged)]
    assert [best.trial for best in told] == [1, 4]
    assert (told[0].load, told[0].percentile, told[0].verified) == ({"concurrency": 8}, "p99", False)
    assert told[1].throughput is not None
    assert told[1].throughput.value == 800
    assert told[1].gain == study.recommendation.gain


def test_relaunches_and_eliminations_are_events(run: RunFolder, events: EventProgress, verified: Study) -> None:
    with events:
        _begin(events, verified)
        failed = Verification(trial=1, load=Concurrency(16), failure="crashed: gone")
        verified.add_verified([failed])
        events.eliminated(1, Concurrency(16), "crashed: gone")
        events.results_changed(verified.recommendation)
        events.results_changed(verified.recommendation)
    told = [(each.trial, each.load, each.rounds, each.failure) for each in _of(run.path, PointVerified)]
    assert told == [
        (0, {"concurrency": 2}, 3, None),
        (1, {"concurrency": 8}, 3, None),
        (1, {"concurrency": 16}, 0, "crashed: gone"),
    ]
    points = [each.point for each in _of(run.path, PointVerified)]
    assert points[2] is None
    assert points[1] is not None
    assert (points[1]["verified"], points[1]["throughput"]["value"]) == (True, 391)
    (eliminated,) = _of(run.path, FinalistEliminated)
    assert (eliminated.trial, eliminated.load, eliminated.reason) == (1, {"concurrency": 16}, "crashed: gone")
    assert not _of(run.path, Noted)


def test_nothing_is_repeated_when_a_run_is_resumed(run: RunFolder, notes: list[str], verified: Study) -> None:
    for _ in range(2):
        with EventProgress.of_run(run, notes.append) as events:
            _begin(events, verified)
    assert [event.trial for event in _of(run.path, TrialEnded)] == [0, 1, 2]
    assert len(_of(run.path, PointVerified)) == 2
    assert len(_of(run.path, BestChanged)) == 1
    assert len(_of(run.path, ModelBegan)) == 2


def test_the_end_of_a_model_has_its_result_and_files(run: RunFolder, events: EventProgress, study: Study) -> None:
    with events:
        _begin(events, study)
        events.model_ended(ModelOutcome(run, "mlp", study, write_results(run, study), "the budget is spent"))
        events.reported(run.report)
        events.reported(Path("/elsewhere/report.html"))
    (ended,) = _of(run.path, ModelEnded)
    assert (ended.result.trial, ended.result.ended, ended.result.failure) == (1, "the budget is spent", None)
    assert [event.path for event in _of(run.path, ArtifactWritten)] == [
        "mlp/front.json",
        "mlp/trials.csv",
        "mlp/best/config.pbtxt",
        "mlp/best/config.diff",
        "report.html",
    ]


def test_a_model_that_failed_keeps_its_result(run: RunFolder, events: EventProgress, study: Study) -> None:
    with events:
        events.run_began()
        events.model_failed("cnn", TuningError("no weights"))
        events.model_began("mlp", study=study, budget_s=60.0)
        events.model_failed("mlp", TuningError("Triton is gone"))
    cnn, mlp = (event.result for event in _of(run.path, ModelEnded))
    assert (cnn.model, cnn.trial, cnn.failure) == ("cnn", None, "no weights")
    assert (mlp.model, mlp.trial, mlp.failure) == ("mlp", 1, "Triton is gone")


def test_a_study_without_a_best_has_a_result(run: RunFolder, events: EventProgress) -> None:
    from support.builders import identity  # noqa: PLC0415 (the name is a fixture's elsewhere)

    study = Study.create_or_resume(run.database, identity(slo={"p99": "1ms"}))
    study.add(trial(0, point(1, 100, 10)), space())
    with events:
        _begin(events, study)
    (best,) = _of(run.path, BestChanged)
    assert (best.best.trial, best.best.percentile) == (None, "p99")


def test_secrets_and_long_texts_are_cut(run: RunFolder, events: EventProgress) -> None:
    keep_secret("password", "swordfish-42")
    with events:
        events.run_began()
        events.note("the password is swordfish-42")
        events.note("x" * 10_000)
    assert "swordfish" not in run.events.read_text()
    assert max(len(event.text) for event in _of(run.path, Noted)) <= 500


def test_a_pull_is_told_twice(run: RunFolder, events: EventProgress) -> None:
    with events:
        for done in range(5):
            events.pulling(Pull("triton:24.08", layers=4, layers_done=done))
        events.pulling(Pull("triton:24.08", layers=4, layers_done=4, ended=True))
        events.run_began()
    assert [event.text for event in _of(run.path, Noted)] == ["pulling triton:24.08", "pulled triton:24.08"]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From then on, writing fails with an error."""

    def fail(number: int) -> None:
        def write(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("tuner.jobs.event_log._write", write)

    return fail


def test_on_a_full_disk_the_work_goes_on_with_one_note(
    run: RunFolder, events: EventProgress, notes: list[str], study: Study
) -> None:
    aside = run.path / "aside"
    with events:
        events.run_began()
        run.events.rename(aside)
        run.events.symlink_to("/dev/full")
        events.model_began("mlp", study=study, budget_s=60.0)
        for result in study.trials:
            events.trial_ended(result, study.recommendation)
        assert notes == [f"{run.events}: cannot be written: No space left on device; the results are not affected"]
        # Space is left again: what the file lacks is written.
        run.events.unlink()
        aside.rename(run.events)
        events.model_ended(ModelOutcome(run, "mlp", study, write_results(run, study), "done"))
    assert len(notes) == 1
    assert [event.trial for event in _of(run.path, TrialEnded)] == [0, 1, 2]
    assert [event.seq for event in EventLog(run.path).read()] == list(range(1, EventLog(run.path).last_seq() + 1))
    assert _states(run.path)[-1] == ("succeeded", 1, 0)


def test_a_stopped_writer_delays_the_work_once(
    run: RunFolder, events: EventProgress, notes: list[str], fail: Callable[[int], None]
) -> None:
    with events:
        events.run_began()
        fail(errno.ETIMEDOUT)
        events.note("lost")
        assert len(notes) == 1
        size, calls = run.events.stat().st_size, len(notes)
        fail(errno.ENOENT)  # is not even tried
        events.note("lost, too")
    assert (run.events.stat().st_size, len(notes)) == (size, calls)


def test_a_folder_that_is_gone_is_no_trouble(run: RunFolder, notes: list[str]) -> None:
    folder = RunFolder(run.path / "new")
    folder.path.mkdir()
    with EventProgress.of_run(folder, notes.append) as events:
        events.run_began()
        folder.events.unlink()
        folder.path.rmdir()
    assert notes == []
