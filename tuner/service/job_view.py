"""What the events of a job tell: its trials, its front and its results, kept up to date event by event."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Any

from tuner.client.resources import Front, FrontPoint, JobHost, JobProgress, ModelResult, Trial
from tuner.core.record import Interval
from tuner.jobs.event_log import EventTail
from tuner.jobs.event_words import EventWords
from tuner.jobs.events import (
    FINAL,
    ArtifactWritten,
    BestChanged,
    Event,
    FinalistEliminated,
    HostChanged,
    ModelBegan,
    ModelEnded,
    NightEnded,
    Noted,
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
from tuner.service.hosts_view import HostsView
from tuner.service.incremental_front import FrontEntry, IncrementalFront

_MOST_LINES = 5_000
# Views in memory, and points in all of them: a point takes some 6 kB.
_MOST_VIEWS, _MOST_POINTS = 64, 10_000
# States after which a trial that has not ended never ends.
_NOT_RUNNING = FINAL | {"queued", "starting"}

_Load = tuple[tuple[str, str], ...]
"""A load as a key."""


@dataclass(frozen=True)
class LogLine:
    """An event in words.

    Attributes:
        seq: Number of the event.
        at: When it happened, UTC.
        text: The words, in one line.
        model: Name of the model; None: the whole job.
    """

    seq: int
    at: datetime
    text: str
    model: str | None = None


@dataclass(eq=False)
class _TrialView:
    """A trial so far.

    Attributes:
        measured: Points of the search by load.
        verified: Points of relaunches by load; None: the relaunch failed.
        usable: Whether its points may be on the front.
    """

    model: str
    number: int
    candidate: str = ""
    ended: TrialEnded | None = None
    measured: dict[_Load, dict[str, Any]] = field(default_factory=dict)
    verified: dict[_Load, dict[str, Any] | None] = field(default_factory=dict)
    is_measurement: bool = False
    usable: bool = True

    @property
    def points(self) -> list[dict[str, Any]]:
        """All points in order of load; one of a relaunch replaces that of the search."""
        again = {load: point for load, point in self.verified.items() if point is not None}
        return sorted({**self.measured, **again}.values(), key=lambda point: _level(point["load"]))

    def resource(self) -> Trial:
        """The trial as the REST API has it."""
        ended = self.ended
        return Trial(
            model=self.model,
            number=self.number,
            candidate=(ended.candidate if ended else "") or self.candidate,
            parameters=ended.parameters if ended else {},
            state="running" if ended is None else "failed" if ended.failure else "measured",
            failure=ended.failure if ended else None,
            cause=ended.cause if ended else None,
            last_words=ended.last_words if ended else "",
            points=tuple(self.points),
            wall_s=ended.wall_s if ended else None,
            host=ended.host if ended else "",
        )


@dataclass
class _ModelView:
    """A model so far."""

    name: str
    percentile: str = "p99"
    slo: str = ""
    maximizes: bool = True
    result: ModelResult | None = None
    front: IncrementalFront[tuple[_TrialView, dict[str, Any]]] = field(default_factory=IncrementalFront)

    def update(self, trial: _TrialView, load: _Load) -> None:
        """Bring the front up to date with one operating point of a trial."""
        key = (trial.number, load)
        point = trial.verified[load] if load in trial.verified else trial.measured.get(load)
        value = point and point["objective_value"] and point["objective_value"]["value"]
        latency_ms = point and point["latency_ms"][self.percentile]["value"]
        if point and trial.usable and point["answered"] and value and latency_ms:
            merit = value if self.maximizes else 1e3 / value
            place = (float(trial.number), _level(point["load"]))
            self.front.put(FrontEntry(key, latency_ms, merit, place, (trial, point)))
        else:
            self.front.remove(key)

    def points(self, trials: Mapping[tuple[str, int], _TrialView]) -> Iterator[FrontPoint]:
        """The front in order of throughput, with the best point, also if it is not on the front."""
        load = self.result and self.result.load
        best = self.result and load and (self.result.trial, load)
        found = [(trial.number, point, True) for trial, point in (entry.item for entry in self.front.entries)]
        if best and load and best not in [(number, point["load"]) for number, point, _ in found]:
            trial = trials.get((self.name, best[0] or 0))
            point = trial and (trial.verified.get(_key(load)) or trial.measured.get(_key(load)))
            if trial and point:
                found.append((trial.number, point, False))
        for number, point, on_front in sorted(found, key=lambda each: each[1]["throughput"]["value"]):
            value = point["objective_value"]
            yield FrontPoint(
                model=self.name,
                trial=number,
                load=point["load"],
                throughput=_interval(point["throughput"]),
                latency_ms=_interval(point["latency_ms"][self.percentile]),
                percentile=self.percentile,
                objective_value=value and _interval(value),
                verified=point["verified"],
                best=(number, point["load"]) == best,
                on_front=on_front,
            )


class JobView:
    """What the events of a job tell so far. Threads may share it.

    Attributes:
        seq: Number of the last event.
        state: The last change of the state; None: there is none.
        phase: The part of the work; None: none began, or the job has ended.
        lines: The latest events in words.
        artifacts: Paths of the files that were written, relative to the folder of the job.
        nights: Entries of `jobs` in the report of a night.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.state: StateChanged | None = None
        self.phase: str | None = None
        self.lines: deque[LogLine] = deque(maxlen=_MOST_LINES)
        self.artifacts: dict[str, None] = {}
        self.nights: list[dict[str, Any]] = []
        self._lock = RLock()
        self._words = EventWords()
        self._models: dict[str, _ModelView] = {}
        self._trials: dict[tuple[str, int], _TrialView] = {}
        self._budget_s: float | None = None
        self._hosts = HostsView()

    def fold(self, event: Event) -> None:
        """Add the next event."""
        with self._lock:
            self.seq = event.seq
            self._fold(event)
            self._hosts.fold(event)
            if text := self._words.line(event):
                self.lines.append(LogLine(event.seq, event.at, text, getattr(event, "model", None)))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials, in order of their beginning."""
        with self._lock:
            return tuple(trial.resource() for trial in self._trials.values())

    @property
    def hosts(self) -> tuple[JobHost, ...]:
        """The hosts of a job that has several slots; else empty."""
        with self._lock:
            return self._hosts.hosts

    @property
    def results(self) -> tuple[ModelResult, ...]:
        """The best configuration of each model so far."""
        with self._lock:
            return tuple(model.result for model in self._models.values() if model.result)

    @property
    def progress(self) -> JobProgress:
        """How far the job is."""
        with self._lock:
            ended = [trial.ended for trial in self._trials.values() if trial.ended]
            return JobProgress(
                trials=len(ended),
                failed_trials=sum(trial.failure is not None for trial in ended),
                points=self.point_count,
                budget_s=self._budget_s,
            )

    @property
    def point_count(self) -> int:
        """Number of operating points."""
        with self._lock:
            return sum(len(trial.measured.keys() | trial.verified.keys()) for trial in self._trials.values())

    def front(self) -> Front:
        """The front of each model with its best point, in order of throughput."""
        with self._lock:
            models = list(self._models.values())
            points = tuple(point for model in models for point in model.points(self._trials))
            first = models[0] if models else _ModelView("")
            return Front(points=points, percentile=first.percentile, slo=first.slo)

    def latest_lines(self, after: int = 0) -> tuple[LogLine, ...]:
        """The latest events in words, with higher numbers than `after`."""
        with self._lock:
            return tuple(line for line in self.lines if line.seq > after)

    def _fold(self, event: Event) -> None:
        match event:
            case StateChanged():
                self._changed(event)
            case PhaseBegan():
                self.phase = event.phase
            case NightEnded():
                self.nights.append(event.night)
            case ArtifactWritten():
                self.artifacts[event.path] = None
            case Noted() | FinalistEliminated() | SlotChanged() | WorkRequeued() | HostChanged():
                pass
            case _:
                self._fold_measured(event)

    def _fold_measured(self, event: Event) -> None:
        match event:
            case ModelBegan():
                self._began(event)
            case TrialBegan():
                self._drop(event.model, event.trial)
                trial = _TrialView(event.model, event.trial, event.candidate)
                self._trials[event.model, event.trial] = trial
            case PointMeasured():
                self._measured(event)
            case TrialEnded():
                self._ended(event)
            case TrialDropped():
                self._drop(event.model, event.trial)
            case PointVerified():
                trial, load = self._trial(event.model, event.trial), _key(event.load)
                trial.verified[load] = event.point
                self._model(event.model).update(trial, load)
            case BestChanged():
                self._model(event.model).result = event.best
            case ModelEnded():
                self._model(event.model).result = event.result
                self._drop_running(event.model)

    def _changed(self, event: StateChanged) -> None:
        self.state = event
        if event.state in _NOT_RUNNING:
            self.phase = None
            self._drop_running()

    def _began(self, event: ModelBegan) -> None:
        model = self._model(event.model)
        model.percentile, model.slo = event.percentile, event.slo
        model.maximizes = not event.objective.startswith("latency.")
        if model.result is None:
            model.result = ModelResult(model=event.model, trial=None, percentile=event.percentile)
        self._budget_s = event.budget_s
        self._drop_running(event.model)

    def _measured(self, event: PointMeasured) -> None:
        trial = self._trial(event.model, event.trial or 0)
        if event.trial is None and not trial.is_measurement:
            trial.is_measurement, trial.candidate = True, "the model's own config"
        load = _key(event.point["load"])
        trial.measured[load] = event.point
        self._model(event.model).update(trial, load)

    def _ended(self, event: TrialEnded) -> None:
        trial, model = self._trial(event.model, event.trial), self._model(event.model)
        before = trial.measured
        trial.ended, trial.usable = event, event.usable
        trial.measured = {_key(point["load"]): point for point in event.points}
        for load in {**before, **trial.measured, **trial.verified}:
            model.update(trial, load)

    def _model(self, name: str) -> _ModelView:
        return self._models.setdefault(name, _ModelView(name))

    def _trial(self, model: str, number: int) -> _TrialView:
        return self._trials.setdefault((model, number), _TrialView(model, number))

    def _drop_running(self, model: str | None = None) -> None:
        """Drop trials that never ended, as of a killed run."""
        for trial in list(self._trials.values()):
            if trial.ended is None and not trial.is_measurement and model in {None, trial.model}:
                self._drop(trial.model, trial.number)

    def _drop(self, model: str, number: int) -> None:
        if trial := self._trials.pop((model, number), None):
            for load in {**trial.measured, **trial.verified}:
                self._model(model).front.remove((number, load))


class JobViews:
    """The views of jobs, each up to the last event in its file. The least recently used are dropped. Thread-safe.

    Args:
        folder_of: Gives the folder of a job.
    """

    def __init__(self, folder_of: Callable[[int], Path]) -> None:
        self._folder_of = folder_of
        self._lock = RLock()
        self._followed: OrderedDict[int, _Followed] = OrderedDict()

    def of(self, job_id: int) -> JobView:
        """The view of a job, up to its last event; without a file, it is empty."""
        with self._lock:
            if job_id not in self._followed:
                self._followed[job_id] = _Followed(EventTail(self._folder_of(job_id)))
            self._followed.move_to_end(job_id)
            followed = self._followed[job_id]
        followed.follow()
        with self._lock:
            self._drop_oldest()
        return followed.view

    def _drop_oldest(self) -> None:
        points = sum(followed.points for followed in self._followed.values())
        while len(self._followed) > 1 and (len(self._followed) > _MOST_VIEWS or points > _MOST_POINTS):
            _, dropped = self._followed.popitem(last=False)
            points -= dropped.points


class _Followed:
    """A view that follows its file."""

    def __init__(self, tail: EventTail) -> None:
        self.view = JobView()
        self.points = 0
        self._tail = tail
        self._lock = RLock()

    def follow(self) -> None:
        with self._lock:
            if events := self._tail.new():
                for event in events:
                    self.view.fold(event)
                self.points = self.view.point_count


def _key(load: Mapping[str, Any]) -> _Load:
    return tuple((name, str(value)) for name, value in load.items())


def _level(load: Mapping[str, Any]) -> float:
    """The load as a number: concurrent requests or requests/s, of a ramp its highest; 0 for a recording."""
    (value,) = load.values()
    highest = max(value) if isinstance(value, list) else value
    return float(highest) if isinstance(highest, int | float) else 0.0


def _interval(value: Mapping[str, float | None]) -> Interval:
    """An interval of a POINT, whose unknown ends are infinite."""
    low, high = value["low"], value["high"]
    return Interval(
        value=value["value"] or 0.0, low=-math.inf if low is None else low, high=math.inf if high is None else high
    )
