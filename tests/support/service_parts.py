"""A service without processes: the real store and operations, and a runner that starts nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tuner.client.resources import Front, FrontPoint, Host, Job, JobHost, JobProgress, ModelResult, Slot, Trial
from tuner.core.record import Interval
from tuner.jobs.events import StateChanged
from tuner.service.auth import Principal
from tuner.service.job_view import LogLine
from tuner.service.operations import Service
from tuner.service.settings import ServiceSettings
from tuner.service.store.store import Store

ADMIN = Principal("admin", "admin", "0" * 12)
READER = Principal("reader", "read", "1" * 12)
SUBMITTER = Principal("submitter", "submit", "2" * 12)


@dataclass
class Clock:
    """A clock that tests set."""

    now: datetime = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class IdleRunner:
    """Starts no jobs; cancels at once."""

    store: Store
    woken: int = 0

    def wake(self) -> None:
        self.woken += 1

    def cancel(self, job_id: int) -> Job:
        return self.store.change_job(job_id, among=("queued", "starting", "running"), state="cancelled")

    def is_alive(self) -> bool:
        return True

    def host(self) -> Host:
        slot = Slot(name="gpu:0", description="NVIDIA H200", job=None)
        return Host(name="machine", description="8 cores", slots=(slot,), running=0, queued=0)


@dataclass
class FixedView:
    """What the events of every job tell."""

    trials: list[Trial] = field(default_factory=list)
    progress: JobProgress = field(default_factory=JobProgress)
    results: list[ModelResult] = field(default_factory=list)
    state: StateChanged | None = None
    phase: str | None = "search"
    points: tuple[FrontPoint, ...] = ()
    hosts: tuple[JobHost, ...] = ()
    seq: int = 0

    def latest_lines(self, after: int = 0) -> tuple[LogLine, ...]:
        return () if after else (LogLine(seq=1, at=datetime(2026, 3, 1, tzinfo=timezone.utc), text="queued"),)

    def front(self) -> Front:
        return Front(points=self.points, percentile="p99", slo="p99 <= 40 ms")


@dataclass
class FixedViews:
    """One view for all jobs."""

    view: FixedView = field(default_factory=FixedView)

    def of(self, job_id: int) -> FixedView:
        assert job_id
        return self.view


def front_point(trial: int, throughput: float, latency_ms: float) -> FrontPoint:
    """A point of a front, with intervals of 1 %."""
    return FrontPoint(
        model="mlp",
        trial=trial,
        load={"concurrency": 8},
        throughput=Interval(value=throughput, low=0.99 * throughput, high=1.01 * throughput),
        latency_ms=Interval(value=latency_ms, low=0.99 * latency_ms, high=1.01 * latency_ms),
        percentile="p99",
    )


@cache
def _empty_database() -> bytes:
    """A database with its tables: to make them takes longer than most tests."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "service.db"
        with Store.opened(f"sqlite:///{file}"):
            pass
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return file.read_bytes()


@contextmanager
def idle_service(
    folder: Path, *, environment: Mapping[str, str] | None = None, clock: Clock | None = None, **settings: Any
) -> Iterator[Service]:
    """A service whose jobs stay queued, with the repository `folder/models`."""
    (folder / "models" / "mlp").mkdir(parents=True, exist_ok=True)
    chosen = ServiceSettings.make({"repositories": str(folder / "models"), **settings}, source="service.yaml")
    data = folder / "data"
    clock = clock or Clock()
    data.mkdir(parents=True, exist_ok=True)
    if not (data / "service.db").exists():
        (data / "service.db").write_bytes(_empty_database())
    with Store.opened(f"sqlite:///{data / 'service.db'}", clock=clock) as store:
        yield Service(store, IdleRunner(store), FixedViews(), chosen, data, environment=environment or {}, clock=clock)
