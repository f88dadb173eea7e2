"""Starts jobs, follows them, and ends them.

The events of a job are the truth about its state, and the lock of its folder is the truth about its process. So a job
is neither lost nor started twice, whenever the service is killed: the next one reads both, and goes on.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tuner.client.resources import FINAL, Host, Job, Slot
from tuner.core.boundary import in_one_line
from tuner.core.errors import JobError, TritontuneError
from tuner.core.quantities import format_duration
from tuner.jobs.event_log import EventLog
from tuner.service.active_job import PARTIAL, ActiveJob
from tuner.service.errors import ConflictError, NotFoundError, StoreUnavailableError
from tuner.service.job_folder import JobFolder
from tuner.service.job_process import Clearing, JobProcess
from tuner.service.place import Place
from tuner.service.slots import RAY, LocalHost, Need, plan_starts, wait_in_words
from tuner.service.spare import Spare
from tuner.service.store.jobs import ACTIVE
from tuner.service.store.store import Store

_log = logging.getLogger(__name__)

# As many queued jobs are looked at; one on a slot that many others wait for does not keep all of them away.
_MOST_QUEUED = 500
# As many queued jobs are told what they wait for; the others wait for these.
_MOST_TOLD = 20
# In s, until a spare process is started again after one that ended by itself.
_SPARE_AGAIN_S = 60.0

Secrets = Callable[[Mapping[str, Any]], Mapping[str, str]]
"""The secrets that the options of a job refer to, by name."""


@dataclass(frozen=True)
class Times:
    """Times of the runner, in seconds.

    Attributes:
        look: Between two looks at the jobs.
        grace: For a cancelled job to end after SIGTERM; then it gets another one.
        force: For it to end after that; then it gets SIGKILL.
        exit: For a process to end after its final event; then it gets SIGKILL.
        clear: For the removal of leftovers.
        idle: Without a job, until a spare process is started for the next one.
        again: Between two tries of what failed.
    """

    look: float = 0.5
    grace: float = 60.0
    force: float = 20.0
    exit: float = 60.0
    clear: float = 300.0
    idle: float = 2.0
    again: float = 10.0


class Runner:
    """Runs the jobs of a host.

    Args:
        store: What is stored.
        jobs: The folder of the jobs' folders.
        host: This host.
        environment: The environment of the jobs.
        of_cluster: More variables for jobs on a Ray cluster, such as its token.
        secrets: The secrets that a job refers to.
        config: The config file of the service, for the notifications of nights; None: there is none.
        lost: Set when another service has taken over the database; then this one does nothing.
        ended: Told the id of each job whose process has ended for good.
        keeps_spare: Whether an idle host keeps a process ready for the next job, which so starts a second sooner.
        times: Times.
        clock: The time of deadlines, in seconds.
    """

    def __init__(
        self,
        store: Store,
        jobs: Path,
        host: LocalHost,
        environment: Mapping[str, str],
        *,
        of_cluster: Mapping[str, str] = MappingProxyType({}),
        secrets: Secrets = lambda _options: {},
        config: Path | None = None,
        lost: threading.Event | None = None,
        ended: Callable[[int], None] = lambda _job_id: None,
        keeps_spare: bool = False,
        times: Times = Times(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._jobs, self._host = store, jobs, host
        self._environment, self._of_cluster = environment, of_cluster
        self._secrets, self._config = secrets, config
        self._lost, self._ended = lost or threading.Event(), ended
        self._times, self._clock = times, clock
        self._active: dict[int, ActiveJob] = {}
        self._not_before: dict[int, float] = {}
        self._has_adopted = False
        self._keeps_spare = keeps_spare
        self._spare: Spare | None = None
        self._spare_at = self._clock() + times.idle
        self._plans_at = self._clock()
        # Guards all of these; held for a round, so that nobody cancels what is just about to start.
        self._mutex = threading.RLock()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to run jobs, in a thread."""
        self._thread = threading.Thread(target=self._keep_stepping, name="runner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. The processes of jobs go on; the next service adopts them."""
        self._closed.set()
        self._wake.set()
        if self._thread:
            self._thread.join()
        with self._mutex:
            for active in self._active.values():
                active.leave()
            self._active.clear()
            if self._spare:
                self._spare.close()
                self._spare = None

    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """Look at the queue now, as something has changed."""
        self._plans_at = self._clock()
        self._wake.set()

    def cancel(self, job_id: int) -> Job:
        """Cancel a job. A queued one is cancelled at once; another one is `cancelling` until nothing of it is left.

        Returns:
            The job, as it is now.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has ended.
            JobError: its events cannot be written, as on a full disk.
            StoreUnavailableError: the database does not answer.
        """
        with self._mutex:
            job = self._store.job(job_id)
            if job.is_final:
                raise ConflictError(f"job {job_id} has ended: {job.state}")
            active = self._active.get(job_id) or self._read(job)
            try:
                if active.has_process:
                    self._active[job_id] = active
                    if active.state != "cancelling":
                        active.change_state("cancelling", "ending its servers")
                else:
                    started = active.attempt > 1
                    active.change_state("cancelled", PARTIAL if started else "cancelled before it started")
            except OSError as error:
                raise JobError(f"job {job_id} cannot be cancelled now: {in_one_line(error)}") from None
            active.store_in(self._store)
            if active.state not in {"cancelling", "cancelled"}:
                raise ConflictError(f"job {job_id} has ended: {active.state}")
            self.wake()
            return active.job

    def host(self) -> Host:
        """This host, its slots, and who holds them.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        held = self._held()
        slots = tuple(
            Slot(name=each.name, description=each.description, job=held.get(each.name)) for each in self._host.slots
        )
        counts = self._store.count_jobs()
        running = sum(counts[state] for state in ACTIVE)
        return Host(
            name=self._host.name,
            description=self._host.description,
            slots=slots,
            running=running,
            queued=counts["queued"],
        )

    def step(self) -> None:
        """One round: follow the jobs that run, and start those that can.

        Raises:
            StoreUnavailableError: the database does not answer. Jobs that run were followed all the same.
        """
        with self._mutex:
            if self._lost.is_set():
                return
            unavailable: StoreUnavailableError | None = None
            for active in list(self._active.values()):
                try:
                    self._follow(active)
                except StoreUnavailableError as error:
                    unavailable = error
            if unavailable:
                raise unavailable
            if not self._has_adopted:
                self._adopt()
            if self._clock() >= self._plans_at:
                self._plans_at = self._clock() + self._times.again
                self._start_due()
            self._keep_spare()

    def _keep_stepping(self) -> None:
        problem = ""
        while not self._closed.is_set():
            self._wake.clear()
            try:
                self.step()
                problem = ""
            except Exception as error:  # noqa: BLE001 (the jobs go on, and so must what ends them)
                words = str(error) if isinstance(error, TritontuneError) else in_one_line(error)
                if words != problem:
                    _log.warning("%s", words, exc_info=not isinstance(error, TritontuneError))
                problem = words
            self._wake.wait(self._times.look)

    def _keep_spare(self) -> None:
        """Start a spare process if there is nothing else to do: its start would disturb measurements."""
        if self._active:
            self._spare_at = self._clock() + self._times.idle
        elif self._spare and not self._spare.lives:
            self._spare.close()
            self._spare, self._spare_at = None, self._clock() + _SPARE_AGAIN_S
        elif self._keeps_spare and self._spare is None and self._clock() >= self._spare_at:
            try:
                self._spare = Spare(self._environment)
            except OSError as error:
                _log.warning("no spare process: %s", in_one_line(error))
                self._spare_at = self._clock() + _SPARE_AGAIN_S

    def _adopt(self) -> None:
        """Take over what a service before this one has left: jobs that run, and those that were about to."""
        for job in [stored.job for stored in self._store.active()] + list(self._store.queued()):
            if job.id in self._active:
                continue
            active = self._read(job)
            if active.has_process:
                self._active[job.id] = active
                active.shares = self._host.sharing(active.process.cores)
                _log.info("job %d: adopted (%s)", job.id, active.state)
            active.store_in(self._store)
            if active.state in FINAL:
                self._ended(active.id)
        self._has_adopted = True

    def _read(self, job: Job) -> ActiveJob:
        """A job by its events."""
        active = ActiveJob(JobFolder.of(self._jobs, job.id), job)
        active.look()
        return active

    def _follow(self, active: ActiveJob) -> None:
        try:
            lives = active.process.lives()
            # Only now, as the process may have written the last one before it ended.
            active.look()
            if lives:
                self._press(active)
            elif active.has_process and self._is_cleared(active):
                active.conclude()
        except OSError as error:  # such as a full disk
            active.tell(in_one_line(error))
            lives = True
        active.store_in(self._store)
        if not lives and not active.has_process:
            self._active.pop(active.id).leave()
            _log.info("job %d: %s", active.id, active.state)
            if active.state in FINAL:
                self._ended(active.id)
            self.wake()

    def _press(self, active: ActiveJob) -> None:
        """Send the signals that are due to a process that must end."""
        times, now = self._times, self._clock()
        if active.state in FINAL:
            due = [(signal.SIGKILL, times.exit)]
        elif active.state == "cancelling":
            due = [(signal.SIGTERM, 0.0), (signal.SIGTERM, times.grace), (signal.SIGKILL, times.grace + times.force)]
        else:
            return
        active.must_end(now)
        for number, after in due[active.pressed :]:
            if now < active.pressed_since + after:
                return
            if not active.process.send(number):
                active.tell("its process cannot be reached from here")
                return
            active.tell("")
            active.pressed += 1

    def _is_cleared(self, active: ActiveJob) -> bool:
        """Whether nothing is left of the process, which has ended. If something is, it is removed."""
        now, times = self._clock(), self._times
        if active.is_clear or (active.process.lease is None and not active.process.is_ours):
            return True
        if active.clearing is None:
            if now >= active.clear_after:
                active.clearing = Clearing(active.folder, self._environment, self._secrets(active.job.job))
                active.clear_until = now + times.clear
            return False
        left = active.clearing.poll()
        if left is None:
            if now < active.clear_until:
                return False
            left = [f"the removal takes longer than {format_duration(times.clear)}"]
        active.clearing.close()
        active.clearing, active.clear_after = None, now + times.again
        active.is_clear = not left
        active.tell(f"leftovers cannot be removed: {'; '.join(left)}" if left else "")
        return active.is_clear

    def _start_due(self) -> None:
        now = self._clock()
        self._not_before = {number: at for number, at in self._not_before.items() if at > now}
        queue = [
            job
            for job in self._store.queued(_MOST_QUEUED)
            if job.id not in self._active and job.id not in self._not_before
        ]
        jobs = {job.id: job for job in queue}
        plan = plan_starts([(job.id, self._need(job)) for job in queue], self._held())
        for number, names in plan.starts.items():
            self._launch(jobs[number], names)
        about = {active.id: active.about() for active in self._active.values()}
        for place, (number, obstacles) in enumerate(plan.waits.items()):
            words = wait_in_words(obstacles, about) if place < _MOST_TOLD else "other jobs are before it"
            self._tell(jobs[number], words)

    def _need(self, job: Job) -> Need:
        return self._host.need(job.kind, job.job, job.target)

    def _held(self) -> dict[str, int]:
        return {name: active.id for active in list(self._active.values()) for name in active.held}

    def _launch(self, job: Job, names: Collection[str]) -> None:
        """Start the process of a job. An error is told, and it is tried again later."""
        active = self._read(job)
        if not active.folder.path.is_dir():
            self._store.change_job(
                job.id, among={"queued"}, state="failed", reason=f"its folder is missing: {active.folder.path}"
            )
            return
        try:
            with active.folder.claimed() as lock:
                if lock is not None and not active.has_process:
                    self._start_process(active, lock, names)
        except OSError as error:
            active.tell(f"cannot be started: {in_one_line(error)}")
            self._not_before[job.id] = self._clock() + self._times.again
        finally:
            # Whatever goes wrong: a job that is `starting` by its events is followed.
            if active.has_process:
                self._active[job.id] = active
        active.store_in(self._store)

    def _start_process(self, active: ActiveJob, lock: int, names: Collection[str]) -> None:
        options = active.job.job
        place = Place(self._host.gpus_for(names, options), self._host.cores_for(names), self._config)
        secrets = self._secrets(options)
        active.folder.lease_file.unlink(missing_ok=True)
        if active.change_state("starting", host=self._host.name, slots=tuple(sorted(names))):
            # A spare process has no secrets, which a job on a cluster needs to reach it.
            on_cluster, spare, environment = options.get("executor") == RAY, None, self._environment
            if on_cluster:
                environment = {**environment, **self._of_cluster}
            else:
                spare, self._spare = self._spare, None
            active.process = JobProcess.start(
                active.folder, lock, place, environment=environment, secrets=secrets, spare=spare
            )

    def _tell(self, job: Job, words: str) -> None:
        """Say in the row of a queued job what it waits for."""
        if job.attempt > 1 and (last := EventLog(JobFolder.of(self._jobs, job.id).path).last_state()):
            words = f"{last.reason}; {words}"
        if words != job.reason:
            with suppress(ConflictError, NotFoundError):  # it was cancelled or removed meanwhile
                self._store.change_job(job.id, among={"queued"}, reason=words)
