"""A service with rich examples: targets, nights, jobs of every state, a long front, proposals and tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from support.service_parts import ADMIN, Clock, IdleRunner

from tuner.client.resources import (
    DeployedPoint,
    Front,
    FrontPoint,
    Host,
    Job,
    JobHost,
    JobProgress,
    ModelResult,
    NightEntry,
    Page,
    Policy,
    Proposal,
    ProposalState,
    Schedule,
    Slot,
    Target,
    TokenSpec,
    Trial,
)
from tuner.core.record import Interval
from tuner.jobs.events import StateChanged
from tuner.service.auth import Principal
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.job_view import LogLine
from tuner.service.operations import Service
from tuner.service.settings import ServiceSettings
from tuner.service.store.store import Store

NOW = datetime(2026, 11, 30, 9, 30, tzinfo=timezone.utc)

DIFF = """\
--- resnet50/config.pbtxt\tbefore
+++ resnet50/config.pbtxt\tafter
@@ -1,5 +1,5 @@
 backend: "onnxruntime"
-max_batch_size: 8
+max_batch_size: 32
 input [
   { name: "INPUT" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] }
 ]
@@ -8,4 +8,7 @@
 instance_group [
-  { kind: KIND_GPU count: 1 }
+  { kind: KIND_GPU count: 2 }
 ]
+dynamic_batching {
+  max_queue_delay_microseconds: 500
+}
"""


def around(value: float, share: float = 0.02) -> Interval:
    """A value with an interval."""
    return Interval(value=value, low=value * (1 - share), high=value * (1 + share))


def point(throughput: float, latency_ms: float, concurrency: int) -> dict[str, Any]:
    """A POINT of `front.json`, with what the pages read."""

    def ends(value: float) -> dict[str, float]:
        return {"value": value, "low": 0.98 * value, "high": 1.02 * value}

    return {
        "load": {"concurrency": concurrency},
        "throughput": ends(throughput),
        "latency_ms": {"p50": ends(0.6 * latency_ms), "p99": ends(latency_ms)},
        "average_batch_size": 4.0,
        "requests": 5000,
        "errors": 0,
    }


def curve(speed: float, levels: int = 8) -> tuple[dict[str, Any], ...]:
    """The points of a candidate: throughput rises with the load, and so does latency."""
    return tuple(
        point(speed * load / (load + 12), 1000 * (load + 12) / speed, load)
        for load in (2**power for power in range(levels))
    )


def trials(count: int, model: str = "resnet50", seed: int = 7, *, running: bool = True) -> list[Trial]:
    """Trials of a model: the baseline, better and worse ones, some that failed, and perhaps one that runs."""
    chance = random.Random(seed)  # noqa: S311 (examples)
    made = []
    for number in range(count):
        batch, instances = chance.choice((4, 8, 16, 32, 64)), chance.choice((1, 2, 3, 4))
        words = f"dynamic_batching, max_batch_size {batch}, instance_group.count {instances}" if number else "baseline"
        common: dict[str, Any] = {"model": model, "number": number, "candidate": words, "wall_s": chance.uniform(8, 40)}
        if number % 11 == 5:
            made.append(Trial(**common, state="failed", failure="out_of_memory: failed to allocate 4.2 GiB"))
        else:
            speed = 1500.0 if not number else 1500 * chance.uniform(0.7, 2.9)
            made.append(Trial(**common, state="measured", points=curve(speed)))
    if running:
        made[-1] = made[-1].model_copy(update={"state": "running", "points": made[-1].points[:3], "wall_s": None})
    return made


def front_of(of: Sequence[Trial], limit: float = 40.0) -> tuple[FrontPoint, ...]:
    """The points that no other one beats."""
    points = [(p, trial) for trial in of for p in trial.points if "throughput" in p]
    points.sort(key=lambda each: (each[0]["latency_ms"]["p99"]["value"], -each[0]["throughput"]["value"]))
    front: list[FrontPoint] = []
    highest = 0.0
    for each, trial in points:
        if each["throughput"]["value"] > highest:
            highest = each["throughput"]["value"]
            front.append(
                FrontPoint(
                    model=trial.model,
                    trial=trial.number,
                    load=each["load"],
                    throughput=Interval(**each["throughput"]),
                    latency_ms=Interval(**each["latency_ms"]["p99"]),
                    percentile="p99",
                )
            )
    holding = [at for at, p in enumerate(front) if p.latency_ms.value <= limit]
    if holding:
        front[holding[-1]] = front[holding[-1]].model_copy(update={"best": True, "verified": True})
    return tuple(front)


@dataclass
class ExampleView:
    """What the events of a job tell."""

    trials: list[Trial] = field(default_factory=list)
    results: list[ModelResult] = field(default_factory=list)
    progress: JobProgress = field(default_factory=JobProgress)
    state: StateChanged | None = None
    phase: str | None = None
    slo: str = "p99 <= 40 ms"
    hosts: tuple[JobHost, ...] = ()
    seq: int = 0
    lines: tuple[LogLine, ...] = ()

    def latest_lines(self, after: int = 0) -> tuple[LogLine, ...]:
        return tuple(line for line in self.lines if line.seq > after)

    def front(self) -> Front:
        models = dict.fromkeys(trial.model for trial in self.trials)
        points = [p for model in models for p in front_of([t for t in self.trials if t.model == model])]
        return Front(points=tuple(points), percentile="p99", slo=self.slo)


class ExampleViews:
    """The views of all jobs: that of a job with results has trials of its models."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.views: dict[int, ExampleView] = {}

    def of(self, job_id: int) -> ExampleView:
        if job_id not in self.views:
            results = self.store.job(job_id).results
            made = [t for result in results for t in trials(12, result.model, seed=job_id, running=False)]
            self.views[job_id] = ExampleView(made, list(results))
        return self.views[job_id]


@dataclass
class ExampleRunner(IdleRunner):
    """A host with two GPUs and a CPU slot."""

    holds: dict[str, int] = field(default_factory=dict)

    def cancel(self, job_id: int) -> Job:
        job = self.store.job(job_id)
        if job.is_final:
            raise ConflictError(f"job {job_id} has ended: it is {job.state}")
        state = "cancelled" if job.state == "queued" else "cancelling"
        return self.store.change_job(job_id, among=(job.state,), state=state)

    def host(self) -> Host:
        slots = (("gpu:0", "NVIDIA H200, 139 GiB"), ("gpu:1", "NVIDIA H200, 139 GiB"), ("cpu:0", "cores 8-15"))
        made = tuple(Slot(name=name, description=text, job=self.holds.get(name)) for name, text in slots)
        return Host(
            name="gpu-host-1", description="16 cores, 128 GiB memory", slots=made, running=len(self.holds), queued=0
        )


def nights(target: str, model: str, count: int, seed: int) -> list[NightEntry]:
    """Nights of a model, the newest first."""
    chance = random.Random(seed)  # noqa: S311 (examples)
    level, made = chance.uniform(900, 2500), []
    for day in range(count):
        outcome = chance.choices(("kept", "improved", "regression", "failed"), (88, 6, 3, 3))[0]
        level *= {"improved": chance.uniform(1.05, 1.2), "regression": 0.85}.get(outcome, chance.uniform(0.985, 1.015))
        measured = outcome != "failed"
        made.append(
            NightEntry(
                night=NOW.replace(hour=2, minute=0) - timedelta(days=count - 1 - day),
                target=target,
                repository="/models/vision",
                model=model,
                outcome=outcome,
                reason={
                    "kept": "no candidate is faster by 3 % (95 % confidence)",
                    "improved": "trial 14 is 1.11 x as fast (1.06 to 1.16), 4 pairs of launches",
                    "regression": "0.85 x the throughput of the last 7 nights (0.82 to 0.88)",
                    "failed": "no slot of the host was free within the window of 8h",
                }[outcome],
                regression=outcome == "regression",
                action="proposed" if outcome == "improved" else "",
                throughput=around(level) if measured else None,
                latency_ms=around(18 + 4e3 / level + 2 * math.sin(day / 3), 0.05) if measured else None,
                percentile="p99" if measured else None,
                gain=around(1.11, 0.05) if outcome == "improved" else None,
            )
        )
    return made[::-1]


TARGETS = (
    ("vision-resnet", ("resnet50",), {"p99": "40ms"}),
    ("search-ranker", ("ranker", "embedder"), {"p99": "25ms"}),
    ("speech", ("conformer",), {"p95": "120ms"}),
    ("fraud", ("xgboost-fraud",), {"p99": "8ms"}),
    ("new-model", (), {"p99": "40ms"}),
)


class ExampleService(Service):
    """A service with targets, nights, schedules and proposals in memory."""

    views: ExampleViews
    runner: ExampleRunner

    def __init__(self, store: Store, settings: ServiceSettings, data: Path, clock: Clock) -> None:
        super().__init__(store, ExampleRunner(store), ExampleViews(store), settings, data, clock=clock)
        self.all_nights: dict[str, list[NightEntry]] = {}
        self.all_targets: dict[str, Target] = {}
        self.all_schedules: list[Schedule] = []
        self.all_proposals: dict[int, Proposal] = {}

    def targets(self, who: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[Target]:
        who.require("read")
        assert cursor is None
        return Page(items=tuple(self.all_targets.values())[:limit])

    def target(self, who: Principal, name: str) -> Target:
        who.require("read")
        if name not in self.all_targets:
            raise NotFoundError("target", name)
        return self.all_targets[name]

    def schedules(self, who: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[Schedule]:
        who.require("read")
        assert cursor is None
        return Page(items=tuple(self.all_schedules)[:limit])

    def proposals(
        self,
        who: Principal,
        *,
        state: ProposalState | None = None,
        target: str | None = None,
        job: int | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Proposal]:
        who.require("read")
        assert cursor is None
        wanted = {"state": state, "target": target, "job": job}
        found = [
            proposal
            for proposal in self.all_proposals.values()
            if all(value in {None, getattr(proposal, name)} for name, value in wanted.items())
        ]
        return Page(items=tuple(found[::-1][:limit]))

    def proposal(self, who: Principal, proposal_id: int) -> Proposal:
        who.require("read")
        if proposal_id not in self.all_proposals:
            raise NotFoundError("proposal", proposal_id)
        return self.all_proposals[proposal_id]

    def approve(self, who: Principal, proposal_id: int, reason: str = "", *, if_version: int | None = None) -> Proposal:
        assert if_version == 1
        return self._decide(who, proposal_id, "approved", reason)

    def reject(self, who: Principal, proposal_id: int, reason: str = "", *, if_version: int | None = None) -> Proposal:
        assert if_version == 1
        return self._decide(who, proposal_id, "rejected", reason)

    def _decide(self, who: Principal, proposal_id: int, state: str, reason: str) -> Proposal:
        who.require("approve")
        before = self.proposal(who, proposal_id)
        if before.state != "open":
            raise ConflictError(f"proposal {proposal_id} is {before.state} by {before.decided_by}, not open")
        after = before.model_copy(
            update={"state": state, "decided_by": who.name, "decided_at": self.clock(), "reason": reason, "version": 2}
        )
        self.all_proposals[proposal_id] = after
        return after

    def history(
        self,
        who: Principal,
        *,
        target: str | None = None,
        model: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[NightEntry]:
        who.require("read")
        assert cursor is None
        nights = [n for name, all_ in self.all_nights.items() for n in all_ if target in {None, name}]
        found = [night for night in nights if model in {None, night.model}]
        found.sort(key=lambda night: night.night, reverse=True)
        return Page(items=tuple(found[:limit]), next="more" if len(found) > limit else None)


@contextmanager
def example_service(folder: Path) -> Iterator[ExampleService]:
    """A service with examples; its repositories may be in `folder/models`."""
    (folder / "models" / "resnet50").mkdir(parents=True, exist_ok=True)
    settings = ServiceSettings.make({"repositories": str(folder / "models")}, source="service.yaml")
    clock, data = Clock(NOW), folder / "data"
    with Store.opened(f"sqlite:///{data / 'service.db'}", clock=clock) as store:
        service = ExampleService(store, settings, data, clock)
        _fill(service)
        yield service


def _fill(service: ExampleService) -> None:
    _add_targets(service)
    _add_jobs(service)
    _add_proposals(service)
    for name, role, days in (("ci", "submit", 60), ("ana", "approve", None), ("wall-screen", "read", 300)):
        expires = None if days is None else NOW + timedelta(days=days)
        service.new_token(ADMIN, TokenSpec(name=name, role=role, expires_at=expires))


def _add_targets(service: ExampleService) -> None:
    for at, (name, models, slo) in enumerate(TARGETS):
        deployed = []
        for model in models:
            of_model = nights(name, model, 40, seed=at * 10 + len(model))
            service.all_nights.setdefault(name, []).extend(of_model)
            measured = next(night for night in of_model if night.throughput)
            trend = tuple(night.throughput.value for night in of_model[14::-1] if night.throughput)
            deployed.append(
                DeployedPoint(
                    model=model,
                    measured_at=measured.night,
                    throughput=measured.throughput,
                    latency_ms=measured.latency_ms,
                    percentile=measured.percentile,
                    holds_slo=model != "xgboost-fraud",
                    gain_on_offer=around(1.42, 0.06) if model == "resnet50" else None,
                    last_night=of_model[0].outcome,
                    trend=trend,
                )
            )
        service.all_targets[name] = Target(
            name=name,
            job={"repository": "/models/vision", "model": list(models), "slo": slo, "budget": "30m"},
            policy=Policy(),
            description="Looked after by the platform team." if at == 0 else "",
            created_at=NOW - timedelta(days=80),
            updated_at=NOW - timedelta(days=3, hours=2),
            deployed=tuple(deployed),
        )
        if models:
            service.all_schedules.append(
                Schedule(
                    name=f"{name}-nightly",
                    cron="0 2 * * *",
                    timezone="Europe/Berlin",
                    target=name,
                    created_at=NOW,
                    updated_at=NOW,
                    next_at=NOW + timedelta(hours=15.5),
                    last_job=30 + at,
                    enabled=at != 2,
                    note="left out on 2026-11-12: the last night still ran" if at == 1 else "",
                )
            )


def _add_jobs(service: ExampleService) -> None:
    cycle = ("succeeded", "succeeded", "failed", "succeeded", "cancelled", "succeeded", "lost")
    reasons = {
        "failed": "the baseline of resnet50 cannot be launched: failed to load 'resnet50' version 1",
        "cancelled": "cancelled by ana",
        "lost": "its process was lost twice (host gpu-host-1, pid 4711)",
        "succeeded": "",
    }
    for number in range(1, 61):
        state = cycle[number % len(cycle)]
        of = TARGETS[number % 4]
        gain = around(1.0 + (number % 9) / 10, 0.05)
        results = tuple(_result(model, gain) for model in of[1][:1] if state == "succeeded")
        begun = NOW - timedelta(hours=8 * (61 - number))
        _add(
            service,
            kind="nightly" if number % 3 else "tune",
            state=state,
            target=of[0],
            models=of[1],
            schedule=f"{of[0]}-nightly" if number % 3 else None,
            submitted_by="ana" if number % 3 == 0 else "scheduler",
            reason=reasons[state],
            created_at=begun,
            started_at=begun + timedelta(minutes=2),
            ended_at=begun + timedelta(minutes=2 + number),
            host="gpu-host-1",
            slots=("gpu:0",),
            exit_code=0 if state == "succeeded" else 1,
            results=results,
            progress=JobProgress(trials=20 + number % 7, failed_trials=number % 3, points=160, budget_s=1800),
            job={"repository": "/models/vision", "model": list(of[1]), "slo": of[2], "budget": f"{10 + number}m"},
            slo="p99 <= 40 ms",
        )
    running = _add(
        service,
        state="running",
        phase="search",
        models=("resnet50",),
        submitted_by="ana",
        created_at=NOW - timedelta(minutes=21),
        started_at=NOW - timedelta(minutes=20),
        host="gpu-host-1",
        slots=("gpu:0",),
        repository="/models/vision",
        slo="p99 <= 40 ms",
        job={"repository": "/models/vision", "model": "resnet50", "slo": {"p99": "40ms"}, "budget": "30m"},
    )
    found = trials(26)
    service.views.views[running.id] = ExampleView(
        found,
        [_result("resnet50", around(1.74, 0.08), ended=None)],
        JobProgress(trials=25, failed_trials=2, points=190, budget_s=1800),
        phase="search",
        lines=tuple(
            LogLine(at, NOW - timedelta(seconds=1200 - at), f"trial {at // 40}: {900 + at} inferences/s, p99 12.3 ms")
            for at in range(1, 1200, 9)
        ),
    )
    folder = service.folder(ADMIN, running.id)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.run.mkdir()
    (folder.run / "report.html").write_text("<!DOCTYPE html><title>report</title>")
    other = _add(
        service,
        kind="measure",
        state="cancelling",
        phase="measurement",
        models=("conformer",),
        submitted_by="ci",
        created_at=NOW - timedelta(minutes=9),
        started_at=NOW - timedelta(minutes=8),
        host="gpu-host-1",
        slots=("gpu:1",),
    )
    service.runner.holds.update({"gpu:0": running.id, "gpu:1": other.id})
    for number, priority in enumerate((10, 0, 0)):
        _add(
            service,
            state="queued",
            target=TARGETS[number][0],
            models=TARGETS[number][1],
            priority=priority,
            submitted_by="ci",
            reason=f"GPU 0 is held by job {running.id}; GPU 1 is held by job {other.id}",
            created_at=NOW - timedelta(minutes=5 - number),
        )


def _add(service: ExampleService, **values: Any) -> Job:
    made = Job.model_validate({"kind": "tune", "id": service.store.next_job_id(), **values})
    return service.store.add_job(made)


def _result(model: str, gain: Interval, ended: str | None = "the budget is spent") -> ModelResult:
    return ModelResult(
        model=model,
        trial=14,
        throughput=around(1500 * gain.value),
        latency_ms=around(36.2, 0.04),
        percentile="p99",
        gain=gain,
        verified=ended is not None,
        ended=ended,
    )


def _add_proposals(service: ExampleService) -> None:
    decided: dict[str, Any] = {"decided_by": "ana", "decided_at": NOW - timedelta(days=1)}
    for number, (state, model, gain) in enumerate(
        (
            ("approved", "ranker", 1.22),
            ("rejected", "conformer", 1.05),
            ("withdrawn", "ranker", 1.1),
            ("open", "resnet50", 1.42),
            ("open", "embedder", 1.09),
        ),
        1,
    ):
        service.all_proposals[number] = Proposal(
            id=number,
            state=state,
            job=50 + number,
            target="vision-resnet" if model == "resnet50" else "search-ranker",
            repository="/models/vision",
            model=model,
            created_at=NOW - timedelta(days=6 - number),
            diff=DIFF.replace("resnet50", model),
            gain=around(gain, 0.05),
            throughput=around(1500 * gain),
            latency_ms=around(36.2, 0.05),
            percentile="p99",
            verified=True,
            evidence=(
                f"trial 14: {1500 * gain:,.0f} inferences/s, p99 36.2 ms at concurrency 64\n"
                "deployed: 1,500 inferences/s, p99 31.0 ms at concurrency 32\n"
                "4 pairs of launches, 41,220 requests; p99 <= 40 ms held (99 % confidence)"
            ),
            reason={"rejected": "we drain this model next week"}.get(state, ""),
            **(decided if state in {"approved", "rejected"} else {}),
        )
