from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import point, trial

from tuner.client.resources import Trial
from tuner.cluster.host_changes import HostChange
from tuner.core.errors import Cause, TuningError
from tuner.core.loads import Concurrency
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO, Statistic
from tuner.jobs.event_log import EventLog
from tuner.jobs.event_progress import EventProgress
from tuner.jobs.events import (
    BestChanged,
    Event,
    ModelBegan,
    ModelResult,
    NightEnded,
    Noted,
    PointMeasured,
    StateChanged,
    TrialBegan,
    TrialEnded,
)
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import pareto_front, usable_points
from tuner.recommend.recommend import recommend
from tuner.recommend.verification import Verification
from tuner.results.points_json import judged_point_json
from tuner.service import job_view
from tuner.service.job_view import JobView, JobViews
from tuner.study.study import Study

_AT = datetime(2026, 11, 30, tzinfo=timezone.utc)
_QUICKEST = Objective.quickest(Statistic("latency", "p99"), 100.0)


class _Stored:
    """A study in memory, as `EventProgress` sees one."""

    def __init__(self, objective: Objective = THROUGHPUT, slo: SLO | None = None) -> None:
        slo = slo or SLO({"p99": 25.0})
        self.identity = SimpleNamespace(
            slo=slo, objective=objective, percentile=objective.percentile_for(slo), max_gpu_memory=None
        )
        self.trials: list[TrialResult] = []
        self.verified: list[Verification] = []

    @property
    def recommendation(self) -> Any:
        identity = self.identity
        return recommend(self.trials, identity.slo, self.verified, objective=identity.objective)

    @property
    def front(self) -> set[tuple[int, float]]:
        """The front by `tuner.recommend`, as trial and load."""
        identity = self.identity
        points = usable_points(self.trials, self.verified, None, identity.objective)
        front = pareto_front(points, identity.percentile, identity.objective)
        return {(each.trial.number, each.point.load.level) for each in front}


class _Job:
    """A job whose events are written by the one who tunes, and read by a view."""

    def __init__(self, folder: Path, study: _Stored) -> None:
        self.study, self.folder = study, folder
        self.events = EventProgress.of_job(folder, pytest.fail)
        self.views = JobViews(lambda _: folder)
        self.events.__enter__()
        self.events.run_began()
        self.events.model_began("mlp", study=cast("Study", study), budget_s=600.0)

    @property
    def view(self) -> JobView:
        return self.views.of(1)

    def measure(self, number: int, points: Sequence[OperatingPoint], failure: Cause | None = None) -> None:
        self.events.trial_began(number, f"candidate {number}")
        for each in points:
            self.events.point_measured(each)
        result = trial(number, *points, failure=failure)
        self.study.trials.append(result)
        self.events.trial_ended(result, self.study.recommendation)

    def relaunch(self, verified: Verification) -> None:
        self.study.verified = [
            each for each in self.study.verified if (each.trial, each.load) != (verified.trial, verified.load)
        ] + [verified]
        self.events.results_changed(self.study.recommendation)

    def front(self) -> set[tuple[int, float]]:
        return {(each.trial, each.load["concurrency"]) for each in self.view.front().points if each.on_front}


# Few values, so that many points are equal in one or both.
_POINTS = st.lists(
    st.builds(
        lambda load, throughput, p99, errors: point(load, throughput, p99, errors=errors),
        st.integers(1, 4),
        st.sampled_from([100, 200, 300, 400]),
        st.sampled_from([10, 20, 30]),
        st.sampled_from([0, 0, 0, 1]),
    ),
    unique_by=lambda each: each.load.level,
    max_size=4,
).map(lambda points: sorted(points, key=lambda each: each.load.level))
_TRIALS = st.lists(st.tuples(_POINTS, st.sampled_from([None, None, None, Cause.CRASHED])), min_size=1, max_size=6)
_RELAUNCHES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 5), st.sampled_from([100, 250, 400]), st.booleans()), max_size=6
)


@pytest.mark.slow
@pytest.mark.parametrize("objective", [THROUGHPUT, _QUICKEST])
@given(trials=_TRIALS, relaunches=_RELAUNCHES)
def test_the_front_of_events_is_that_of_all_points_at_once(
    objective: Objective, tmp_path_factory: pytest.TempPathFactory, trials: Any, relaunches: Any
) -> None:
    job = _Job(tmp_path_factory.mktemp("job"), _Stored(objective))
    for number, (points, failure) in enumerate(trials):
        job.measure(number, points, failure)
        assert job.front() == job.study.front
    for number, load, throughput, fails in relaunches:
        job.relaunch(_relaunched(job.study, number % len(trials), point(load, throughput, 15), fails=fails))
        assert job.front() == job.study.front


def _relaunched(study: _Stored, number: int, measured: OperatingPoint, *, fails: bool) -> Verification:
    """A verification with one more round. Half of its rounds had a part in the choice."""
    before = [each for each in study.verified if (each.trial, each.load) == (number, measured.load)]
    rounds = before[0].rounds if before else ()
    failure = "crashed: gone" if fails else None
    rounds = rounds if fails else (*rounds, measured)
    return Verification(
        trial=number,
        load=measured.load,
        rounds=rounds,
        numbers=tuple(range(len(rounds))),
        choosing=len(rounds) // 2,
        failure=failure,
    )


def _events(*kinds: dict[str, Any]) -> list[Event]:
    return [kind.pop("kind")(seq=number, at=_AT, **kind) for number, kind in enumerate(kinds, 1)]


def _folded(*events: Event) -> JobView:
    view = JobView()
    for event in events:
        view.fold(event)
    return view


def test_a_view_tells_the_trials_and_the_progress(tmp_path: Path) -> None:
    job = _Job(tmp_path, _Stored())
    job.events.phase_began("search")
    job.measure(0, [point(1, 100, 10), point(2, 110, 20)])
    job.measure(1, [point(8, 400, 20)])
    job.measure(2, [], Cause.OUT_OF_MEMORY)
    job.events.trial_began(3, "instance_group.count 8")
    job.events.point_measured(point(4, 300, 18))
    view = job.view
    assert view.phase == "search"
    assert [(each.number, each.state, len(each.points)) for each in view.trials] == [
        (0, "measured", 2),
        (1, "measured", 1),
        (2, "failed", 0),
        (3, "running", 1),
    ]
    failed = view.trials[2]
    assert (failed.failure, failed.cause, failed.last_words) == ("it did not work", "out_of_memory", "E bad\n")
    progress = view.progress
    assert (progress.trials, progress.failed_trials, progress.points, progress.budget_s) == (3, 1, 4, 600.0)
    (result,) = view.results
    assert (result.model, result.trial, result.ended) == ("mlp", 1, None)
    front = view.front()
    assert (front.percentile, front.slo) == ("p99", "p99 <= 25 ms")
    # In order of throughput; the running trial's point is on it, too.
    assert [(each.trial, each.best) for each in front.points] == [(0, False), (3, False), (1, True)]
    assert front.points[2].throughput.value == 400
    assert front.points[2].latency_ms.high == pytest.approx(22)


def test_a_relaunch_replaces_the_point_of_the_search(tmp_path: Path) -> None:
    job = _Job(tmp_path, _Stored())
    job.measure(0, [point(1, 100, 10)])
    job.measure(1, [point(1, 90, 9), point(8, 400, 20)])
    rounds = (point(8, 380, 21), point(8, 382, 21))
    job.relaunch(Verification(trial=1, load=Concurrency(8), rounds=rounds, numbers=(1, 2)))
    (best,) = [each for each in job.view.front().points if each.best]
    assert (best.verified, best.throughput.value) == (True, 381)
    assert [(each["throughput"]["value"], each["verified"]) for each in job.view.trials[1].points] == [
        (90, False),
        (381, True),
    ]
    assert "trial 1 relaunched: 381 inferences/s, p99 21 ms at concurrency 8, 2 launches" in [
        line.text for line in job.view.lines
    ]


def test_the_best_point_is_told_though_a_lucky_one_beats_it() -> None:
    relaunched = {**judged_point_json(point(8, 300, 25), THROUGHPUT), "verified": True}
    lucky = judged_point_json(point(8, 390, 18), THROUGHPUT)
    view = _folded(
        *_events(
            {"kind": TrialBegan, "model": "m", "trial": 1, "candidate": "more instances"},
            {"kind": PointMeasured, "model": "m", "trial": 1, "point": relaunched},
            {"kind": TrialBegan, "model": "m", "trial": 2, "candidate": "larger batches"},
            {"kind": PointMeasured, "model": "m", "trial": 2, "point": lucky},
            {"kind": BestChanged, "model": "m", "best": ModelResult(model="m", trial=1, load={"concurrency": 8})},
        )
    )
    assert [(each.trial, each.best, each.on_front) for each in view.front().points] == [
        (1, True, False),
        (2, False, True),
    ]


def test_a_trial_that_never_ended_is_gone_when_the_job_ends_or_goes_on(tmp_path: Path) -> None:
    job = _Job(tmp_path, _Stored())
    job.measure(0, [point(1, 100, 10)])
    job.events.trial_began(1, "cut off")
    job.events.point_measured(point(8, 400, 20))
    assert len(job.view.trials) == 2
    EventLog(tmp_path).append(StateChanged, state="queued", attempt=2, reason="its process was lost")
    assert [each.number for each in job.view.trials] == [0]
    assert job.front() == {(0, 1)}
    again = _Job(tmp_path, job.study)
    again.events.trial_began(1, "cut off, too")
    EventLog(tmp_path).change_state(state="cancelled", exit_code=130)
    view = again.view
    assert [each.number for each in view.trials] == [0]
    assert (view.phase, view.state and view.state.state) == (None, "cancelled")


def test_a_trial_that_begins_again_begins_anew(tmp_path: Path) -> None:
    job = _Job(tmp_path, _Stored())
    job.events.trial_began(0, "the baseline")
    job.events.point_measured(point(8, 400, 20))
    job.measure(0, [point(1, 100, 10)])
    assert job.front() == {(0, 1)}
    assert len(job.view.trials[0].points) == 1


def test_a_failed_model_has_a_result(tmp_path: Path) -> None:
    job = _Job(tmp_path, _Stored())
    job.measure(0, [point(1, 100, 10)])
    job.events.model_failed("cnn", TuningError("no weights"))
    assert [(each.model, each.trial, each.failure) for each in job.view.results] == [
        ("mlp", 0, None),
        ("cnn", None, "no weights"),
    ]


def test_a_measurement_has_one_trial_and_a_front() -> None:
    measured = [judged_point_json(point(load, 100 * load, 10 * load), THROUGHPUT) for load in (1, 2)]
    view = _folded(
        *_events(
            {"kind": ModelBegan, "model": "m", "slo": "", "percentile": "p99", "objective": "throughput"}
            | {"budget_s": None},
            *({"kind": PointMeasured, "model": "m", "trial": None, "point": each} for each in measured),
            {"kind": StateChanged, "state": "succeeded", "exit_code": 0},
        )
    )
    (only,) = view.trials
    assert (only.number, only.candidate, len(only.points)) == (0, "the model's own config", 2)
    assert [each.load for each in view.front().points] == [{"concurrency": 1}, {"concurrency": 2}]
    assert [line.text for line in view.lines] == [
        "measuring m: no SLO",
        "100 inferences/s, p99 10 ms at concurrency 1",
        "200 inferences/s, p99 20 ms at concurrency 2",
        "succeeded",
    ]


def test_unknown_values_are_no_error() -> None:
    unknown: dict[str, float | None] = {"value": None, "low": None, "high": None}
    vague = judged_point_json(point(1, 100, 10), THROUGHPUT)
    vague["throughput"] = {"value": 100.0, "low": None, "high": None}
    silent = judged_point_json(point(2, 100, 10), THROUGHPUT)
    silent |= {
        "throughput": unknown,
        "objective_value": None,
        "latency_ms": dict.fromkeys(silent["latency_ms"], unknown),
    }
    view = _folded(
        *_events(
            {"kind": TrialBegan, "model": "m", "trial": 0, "candidate": "the baseline"},
            {"kind": PointMeasured, "model": "m", "trial": 0, "point": vague},
            {"kind": PointMeasured, "model": "m", "trial": 0, "point": silent},
            {"kind": TrialEnded, "model": "m", "trial": 0, "parameters": {}, "points": [vague, silent], "wall_s": 1.0},
            {"kind": NightEnded, "model": "m", "night": {"outcome": "kept"}},
        )
    )
    (only,) = view.front().points
    assert (only.throughput.low, only.throughput.high) == (float("-inf"), float("inf"))
    assert view.nights == [{"outcome": "kept"}]


def test_lines_are_the_latest_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_view, "_MOST_LINES", 3)
    view = _folded(*_events(*({"kind": Noted, "text": str(number)} for number in range(5))))
    assert [line.text for line in view.lines] == ["2", "3", "4"]
    assert [line.text for line in view.latest_lines(after=4)] == ["4"]


def test_an_unknown_job_is_empty(tmp_path: Path) -> None:
    view = JobViews(lambda number: tmp_path / str(number)).of(7)
    assert (view.trials, view.results, view.front().points, view.state) == ((), (), (), None)


def test_the_least_recently_used_views_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_view, "_MOST_POINTS", 5)
    for number in (1, 2, 3):
        (tmp_path / str(number)).mkdir()
        log = EventLog(tmp_path / str(number))
        for load in (1, 2):
            log.append(PointMeasured, model="m", trial=0, point=judged_point_json(point(load), THROUGHPUT))
    views = JobViews(lambda number: tmp_path / str(number))
    first, second = views.of(1), views.of(2)
    assert views.of(1) is first
    views.of(3)
    assert views.of(1) is first
    assert views.of(2) is not second
    monkeypatch.setattr(job_view, "_MOST_VIEWS", 1)
    assert views.of(2).point_count == 2
    assert views.of(1) is not first


def test_threads_share_a_view_while_it_grows(tmp_path: Path) -> None:
    job = _Job(tmp_path, _Stored())
    seen: list[tuple[Trial, ...]] = []

    def watch() -> None:
        while len(job.view.trials) < 30:
            job.view.front()
            seen.append(job.view.trials)

    watchers = [Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for number in range(30):
        job.measure(number, [point(1, 100 + number, 10), point(2, 200 + number, 20)])
    for watcher in watchers:
        watcher.join(timeout=60)
    assert not any(watcher.is_alive() for watcher in watchers)
    assert seen
    assert len(job.view.trials) == 30


@pytest.mark.slow
def test_a_job_of_2000_points_is_read_quickly_and_goes_on_quicker(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 (no secret)
    log = EventLog(tmp_path)
    began = {"model": "m", "slo": "", "percentile": "p99", "objective": "throughput", "budget_s": 600.0}
    log.append(ModelBegan, **began)
    whole = log.path.read_bytes()
    made: list[Event] = []
    for number in range(200):
        points = [
            judged_point_json(point(load, chance.uniform(50, 1000), chance.uniform(1, 100)), THROUGHPUT)
            for load in range(1, 11)
        ]
        made += [PointMeasured(seq=1, at=_AT, model="m", trial=number, point=each) for each in points]
        made.append(
            TrialEnded(
                seq=1, at=_AT, model="m", trial=number, parameters={"a": number}, points=tuple(points), wall_s=1.0
            )
        )
    lines = [event.model_copy(update={"seq": seq}).model_dump_json() for seq, event in enumerate(made, 2)]
    log.path.write_bytes(whole + ("\n".join(lines) + "\n").encode())
    views = JobViews(lambda _: tmp_path)
    took = time.process_time()
    view = views.of(1)
    took = time.process_time() - took
    assert (view.progress.points, view.progress.trials) == (2_000, 200)
    # CPU time, of which a busy machine takes hardly more; it is a third of this.
    assert took < 2
    log.append(PointMeasured, model="m", trial=200, point=judged_point_json(point(1, 2_000, 0.5), THROUGHPUT))
    one = time.process_time()
    assert len(views.of(1).front().points) == 1
    assert time.process_time() - one < took / 4


def test_hosts_and_what_their_slots_do(tmp_path: Path) -> None:
    job = _Job(tmp_path, _Stored())

    def doing() -> dict[str, str | None]:
        return {slot.name: slot.work for host in job.view.hosts for slot in host.slots}

    job.measure(0, [point(8, 100, 20)])
    assert doing() == {}  # a job with one slot names none
    events = job.events
    slots = ("w1/gpu:0", "w1/gpu:1")
    events.host_changed(HostChange("w1", "admitted", slots=slots, description="2 x H200", host_class="b"))
    events.host_changed(HostChange("w3", "left_out", "another GPU: A100"))
    events.trial_began(1, "count 1", "w1/gpu:0")
    events.trial_began(2, "count 2", "w2/gpu:0")
    events.launch_began("w1/gpu:1", "round 2 of trial 0")
    assert doing() == {
        "w1/gpu:0": "trial 1: count 1",
        "w1/gpu:1": "round 2 of trial 0",
        "w2/gpu:0": "trial 2: count 2",
    }
    events.host_changed(HostChange("w2", "lost", "its node died"))
    events.requeued("trial 2", "w2/gpu:0", "its node died", trial=2)
    events.launch_ended("w1/gpu:1")
    events.trial_began(2, "count 2", "w1/gpu:1")
    job.study.trials.append(trial(1, point(8, 200, 20)))
    events.trial_ended(job.study.trials[-1], job.study.recommendation)
    assert doing() == {"w1/gpu:0": None, "w1/gpu:1": "trial 2: count 2", "w2/gpu:0": None}
    events.host_changed(HostChange("w1", "drained", "its baseline drifts"))
    assert [(host.name, host.state, host.reason, host.host_class) for host in job.view.hosts] == [
        ("w1", "drained", "its baseline drifts", "b"),
        ("w3", "left_out", "another GPU: A100", ""),
        ("w2", "lost", "its node died", ""),
    ]
    events.trial_dropped(2, "lost twice")
    assert set(doing().values()) == {None}
    assert [each.number for each in job.view.trials] == [0, 1]
    events.host_changed(HostChange("w2", "back"))
    assert [host.state for host in job.view.hosts] == ["drained", "left_out", "admitted"]
    events.trial_began(3, "count 3", "w2/gpu:0")
    events.ended(130)
    job.events._change("cancelled", reason="cancelled")
    assert set(doing().values()) == {None}
