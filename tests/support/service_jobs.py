"""Jobs of the service, and a runner for them, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from support.command_line import await_that

from tuner.client.resources import Job
from tuner.core.lease import own_lease
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Event, StateChanged
from tuner.service.errors import StoreUnavailableError
from tuner.service.job_folder import JobFolder, SubmissionRecord
from tuner.service.job_processes import end_processes_of, processes_of
from tuner.service.runner import Runner, Times
from tuner.service.slots import LocalHost, cpu_slots
from tuner.service.store.store import Store

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")

QUICK = Times(look=0.02, grace=30, force=30, exit=30, clear=60, idle=0.1, again=0.1)
"""Times for tests: little between two looks; deadlines that no busy machine exceeds."""


def fake_command(folder: JobFolder, lock: int, _place: object) -> list[str]:
    """As `tuner.service.worker.command`, of the fake one."""
    return [sys.executable, "-I", "-S", str(FAKE_WORKER), str(folder.path), f"--lock={lock}", f"--lease={own_lease()}"]


class FakeClearing:
    """As `Clearing`, in this process. What the file `left` in the job's folder says is left."""

    def __init__(self, folder: JobFolder, *_: object) -> None:
        self._folder = folder

    def poll(self) -> Sequence[str] | None:
        lease, left = self._folder.lease(), self._folder.path / "left"
        more = left.read_text().splitlines() if left.exists() else []
        return [*(end_processes_of(lease) if lease else ()), *more]

    def close(self) -> None:
        pass


@dataclass
class Bench:
    """A data folder with its store, and a runner that steps where the test says so."""

    store: Store
    jobs: Path
    host: LocalHost
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    times: Times = QUICK
    clock: Callable[[], float] = time.monotonic
    ended: list[int] = field(default_factory=list)
    keeps_spare: bool = False

    def __post_init__(self) -> None:
        self.runner = self.new_runner()

    def new_runner(self) -> Runner:
        """The runner of a service that starts now."""
        return Runner(
            self.store,
            self.jobs,
            self.host,
            self.environment,
            of_cluster={"RAY_AUTH_TOKEN": "t0ken"},
            secrets=lambda options: options.get("secrets", {}),
            ended=self.ended.append,
            keeps_spare=self.keeps_spare,
            times=self.times,
            clock=self.clock,
        )

    def restart(self) -> None:
        """A service that was killed, and one that starts in its place."""
        self.runner.close()
        self.runner = self.new_runner()

    def submit(self, *act: str, again: Sequence[str] = (), **options: Any) -> int:
        """Submit a job, as the API does.

        Args:
            act: What its process does, if it is fake.
            again: What it does in the second attempt.
            options: Its options, and its `kind` and `priority`.
        """
        kind, priority = options.pop("kind", "tune"), options.pop("priority", 0)
        if act:
            options |= {"act": list(act), **({"act 2": list(again)} if again else {})}
        job = Job(
            id=self.store.next_job_id(),
            kind=kind,
            state="queued",
            priority=priority,
            models=("mlp",),
            created_at=datetime.now(timezone.utc),
            job=options,
        )
        folder = self.folder(job.id)
        folder.write(SubmissionRecord(job=job))
        EventLog(folder.path).append(StateChanged, state="queued")
        self.store.add_job(job)
        self.runner.wake()
        return job.id

    def folder(self, job_id: int) -> JobFolder:
        return JobFolder.of(self.jobs, job_id)

    def job(self, job_id: int) -> Job:
        return self.store.job(job_id)

    def events(self, job_id: int) -> list[Event]:
        return list(EventLog(self.folder(job_id).path).read())

    def states(self, job_id: int) -> list[str]:
        """The states that the events tell."""
        return [event.state for event in self.events(job_id) if isinstance(event, StateChanged)]

    def step_until(self, condition: Callable[[], bool]) -> None:
        """Step until a condition is true."""

        def after_a_step() -> bool:
            with suppress(StoreUnavailableError):
                self.runner.step()
                return condition()
            return False

        await_that(after_a_step)

    def until(self, job_id: int, *states: str) -> Job:
        """Step until a job is in one of these states."""
        self.step_until(lambda: self.job(job_id).state in states)
        return self.job(job_id)

    def go(self, job_id: int) -> None:
        """Let it go on."""
        (self.folder(job_id).path / "go").touch()

    def is_gone(self, job_id: int) -> bool:
        """Whether no process of the job is left."""
        lease = self.folder(job_id).lease()
        return not self.folder(job_id).is_running() and (lease is None or not processes_of(lease))

    def end_all(self) -> None:
        """Leave nothing running."""
        self.runner.close()
        for folder in JobFolder.all(self.jobs):
            if lease := folder.lease():
                for process in processes_of(lease):
                    process.kill()


@contextmanager
def bench(path: Path, *, slots: int = 1, database: str | None = None, **more: Any) -> Iterator[Bench]:
    """A bench whose host has some slots.

    Args:
        path: An empty folder.
        slots: Number of CPU slots of a core each.
        database: URL of the database; None: SQLite in the folder.
        more: See `Bench`.
    """
    host = LocalHost("here", "a few cores", cpu_slots(range(slots), 1 if slots > 1 else None))
    with Store.opened(database or f"sqlite:///{path / 'service.db'}") as store:
        made = Bench(store, path / "jobs", host, **more)
        try:
            yield made
        finally:
            made.end_all()


def serve(path: Path) -> None:
    """A service without its API, in a process of its own, until it is killed."""
    with bench(path) as made:
        made.runner.start()
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        while True:
            time.sleep(1)


@contextmanager
def serving(path: Path) -> Iterator[subprocess.Popen[str]]:
    """The same, as seen by its test."""
    script = f"import sys; sys.path[:] = {sys.path!r}; from support.service_jobs import *; serve(Path({str(path)!r}))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "serving\n"
            yield process
        finally:
            process.kill()
