"""Everything that the REST API and the dashboard do: each operation checks who asks, then what is asked."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tuner.client.resources import (
    Artifact,
    Front,
    Host,
    Job,
    JobKind,
    JobProgress,
    JobState,
    ModelResult,
    NewToken,
    Page,
    Policy,
    Submission,
    Target,
    Token,
    TokenSpec,
    Trial,
)
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import Event, StateChanged
from tuner.nightly.jobs import NightlyJob
from tuner.options.measure_job import MeasureJob
from tuner.service.auth import Authentication, Principal
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.job_folder import JobFolder, SubmissionKey, SubmissionRecord
from tuner.service.policy import AllowList, JobOptions, resolve
from tuner.service.refusals import LimitError
from tuner.service.secrets import Secrets
from tuner.service.settings import ServiceSettings
from tuner.service.store.database import Clock, utc_now
from tuner.service.store.jobs import JobFilter
from tuner.service.store.pages import checked_limit, number_of, page_of
from tuner.service.store.store import Store

Item = TypeVar("Item")

ALL_JOBS = JobFilter()
"""The filter that every job passes."""


class JobRunner(Protocol):
    """What the service needs of `Runner`."""

    def wake(self) -> None:
        """Look for what has changed."""

    def cancel(self, job_id: int) -> Job:
        """Cancel a job."""

    def host(self) -> Host:
        """This host, its slots, and who holds them."""


class View(Protocol):
    """What the service needs of a `JobView`."""

    @property
    def trials(self) -> Sequence[Trial]:
        """The trials, in order of their beginning."""

    @property
    def progress(self) -> JobProgress:
        """How far the job is."""

    @property
    def results(self) -> Sequence[ModelResult]:
        """The best of each model so far."""

    @property
    def phase(self) -> str | None:
        """The part of the work."""

    def front(self) -> Front:
        """The front of each model."""


class Views(Protocol):
    """What the service needs of `JobViews`."""

    def of(self, job_id: int) -> View:
        """The view of a job, up to its last event."""


class Service:
    """The operations of the service.

    Args:
        store: What is stored.
        runner: Runs the jobs.
        views: What the events of jobs tell.
        settings: The config file.
        data: The data folder.
        environment: The environment of the service, for secrets.
        clock: The time, UTC.
        allow: What jobs may do; None: by `settings`.
    """

    def __init__(
        self,
        store: Store,
        runner: JobRunner,
        views: Views,
        settings: ServiceSettings,
        data: Path,
        *,
        environment: Mapping[str, str] = os.environ,
        clock: Clock = utc_now,
        allow: AllowList | None = None,
    ) -> None:
        self.store = store
        self.runner = runner
        self.views = views
        self.settings = settings
        self.data = data
        self.clock = clock
        self.auth = Authentication(store, settings, clock)
        self.secrets = Secrets(settings.secrets, environment, settings.secrets_folder)
        self.allow = allow or AllowList(settings, self.secrets, runs=self.jobs_folder, resolve=resolve)
        self._submitting = threading.Lock()

    @property
    def jobs_folder(self) -> Path:
        """The folder of the jobs' folders."""
        return self.data / "jobs"

    # Jobs

    def submit(
        self,
        who: Principal,
        submission: Submission,
        key: str | None = None,
        schedule: str | None = None,
    ) -> Job:
        """Submit a job.

        Args:
            who: Who asks; needs the role submit.
            submission: What is asked.
            key: The `Idempotency-Key`: the same key and submission of the same token give the same job.
            schedule: The schedule that submits it.

        Raises:
            ForbiddenError: the role, or the config file of the service, does not allow it.
            JobError: an option is wrong.
            NotFoundError: there is no such target.
            ConflictError: the key was used with another submission.
            LimitError: the token has too many jobs that have not ended.
        """
        who.require("submit")
        stored_key = SubmissionKey(token=who.token_id, key=key, digest=_digest(submission)) if key else None
        if stored_key and (earlier := self.store.job_of_key(stored_key)):
            return earlier
        target = self._target(submission.target) if submission.target else None
        options = merged(submission.kind, submission.job, target)
        return self._add(
            who,
            Job(
                id=1,
                kind=submission.kind,
                state="queued",
                target=submission.target,
                priority=submission.priority,
                schedule=schedule,
                job=options,
                created_at=self.clock(),
            ),
            policy=target.policy if target else None,
            key=stored_key,
        )

    def retry(self, who: Principal, job_id: int) -> Job:
        """Submit a job that has ended once more, with its options. Needs the role submit.

        Raises:
            ForbiddenError: see `submit`.
            NotFoundError: there is no such job.
            ConflictError: it has not ended.
            LimitError: see `submit`.
        """
        who.require("submit")
        job = self.store.job(job_id)
        if not job.is_final:
            raise ConflictError(f"job {job_id} is {job.state}; only a job that has ended can be repeated")
        again = Job(
            id=1,
            kind=job.kind,
            state="queued",
            target=job.target,
            priority=job.priority,
            retry_of=job.id,
            job=job.job,
            created_at=self.clock(),
        )
        return self._add(who, again, policy=JobFolder.of(self.jobs_folder, job_id).read().policy, key=None)

    def cancel(self, who: Principal, job_id: int) -> Job:
        """Cancel a job. It is `cancelling` until its last server is gone. Needs the role submit.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has ended.
        """
        who.require("submit")
        return self.runner.cancel(job_id)

    def jobs(
        self, who: Principal, wanted: JobFilter = ALL_JOBS, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Job]:
        """A page of jobs, the newest first. Needs the role read.

        Raises:
            CursorError: the cursor is not one of this list.
        """
        who.require("read")
        page = self.store.jobs(wanted, cursor=cursor, limit=limit)
        return Page[Job].model_construct(items=tuple(map(self._live, page.items)), next=page.next)

    def job(self, who: Principal, job_id: int) -> Job:
        """A job, as it is now. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
        """
        who.require("read")
        return self._live(self.store.job(job_id))

    def count_jobs(self, who: Principal) -> Mapping[JobState, int]:
        """The number of jobs in each state. Needs the role read."""
        who.require("read")
        return self.store.count_jobs()

    def queue(self, who: Principal, limit: int | None = None) -> Sequence[Job]:
        """The queued jobs in the order in which they start. Needs the role read."""
        who.require("read")
        return self.store.queued(limit)

    def trials(self, who: Principal, job_id: int, *, cursor: str | None = None, limit: int = 50) -> Page[Trial]:
        """A page of the trials of a job, in order of their beginning. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
            CursorError: the cursor is not one of this list.
        """
        return _page(self.view(who, job_id).trials, "trials", cursor, limit)

    def front(self, who: Principal, job_id: int) -> Front:
        """The front of each model of a job. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
        """
        return self.view(who, job_id).front()

    def view(self, who: Principal, job_id: int) -> View:
        """What the events of a job tell. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
        """
        self.folder(who, job_id)
        return self.views.of(job_id)

    def events(self, who: Principal, job_id: int, after: int = 0) -> Iterator[Event]:
        """The events of a job after a number. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
        """
        return EventLog(self.folder(who, job_id).path).read(after)

    def folder(self, who: Principal, job_id: int) -> JobFolder:
        """The folder of a job. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
        """
        who.require("read")
        return JobFolder.of(self.jobs_folder, self.store.job(job_id).id)

    def artifacts(self, who: Principal, job_id: int, *, cursor: str | None = None, limit: int = 50) -> Page[Artifact]:
        """A page of the files of a job, by path. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
            CursorError: the cursor is not one of this list.
        """
        return _page(_artifacts(self.folder(who, job_id)), "artifacts", cursor, limit)

    def artifact(self, who: Principal, job_id: int, path: str) -> Path:
        """A file of a job, by its path within the job's folder. Needs the role read.

        Raises:
            NotFoundError: there is no such job, or no such file within its folder.
        """
        file = self.folder(who, job_id).artifact(path)
        if file is None:
            raise NotFoundError("file", path)
        return file

    # Hosts and tokens

    def hosts(self, who: Principal) -> Page[Host]:
        """The hosts with their slots. Needs the role read."""
        who.require("read")
        return Page[Host](items=(self.runner.host(),))

    def tokens(self, who: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[Token]:
        """A page of tokens, by name, without their secrets. Needs the role admin.

        Raises:
            CursorError: the cursor is not one of this list.
        """
        who.require("admin")
        return self.store.tokens(cursor=cursor, limit=limit)

    def token(self, who: Principal, token_id: str) -> Token:
        """A token without its secret. Needs the role admin.

        Raises:
            NotFoundError: there is no such token.
        """
        who.require("admin")
        return self.store.token_by_id(token_id).token

    def new_token(self, who: Principal, spec: TokenSpec) -> NewToken:
        """Make a token. Its secret is shown once. Needs the role admin.

        Raises:
            JobError: it would have expired already.
            ConflictError: another token has this name.
        """
        who.require("admin")
        return self.auth.new_token(spec)

    def remove_token(self, who: Principal, token_id: str) -> None:
        """Remove a token, which ends its browser sessions. Needs the role admin.

        Raises:
            NotFoundError: there is no such token.
            ConflictError: it is the token of the request, which would lock out who asks.
        """
        who.require("admin")
        if token_id == who.token_id:
            raise ConflictError(f"the token {who.name!r} cannot remove itself; use another one of the role admin")
        self.store.remove_token(token_id)

    def _target(self, name: str) -> Target:
        raise NotFoundError("target", name)

    def _live(self, job: Job) -> Job:
        """The job with its progress, if it runs."""
        if job.state not in {"running", "cancelling"}:
            return job
        view = self.views.of(job.id)
        return job.model_copy(
            update={"progress": view.progress, "results": tuple(view.results), "phase": view.phase or job.phase}
        )

    def _add(self, who: Principal, job: Job, *, policy: Policy | None, key: SubmissionKey | None) -> Job:
        """Check a job, write its folder, then its row."""
        options, stored = self.allow.checked(job.kind, job.job, who.role)
        with self._submitting:
            self._check_limit(who)
            job = job.model_copy(
                update={
                    "id": self.store.next_job_id(),
                    "models": _models_of(options),
                    "repository": str(options.repository) if options.repository else None,
                    "slo": str(options.slo) if options.slo.root else "",
                    "submitted_by": who.name,
                    "job": stored,
                }
            )
            folder = JobFolder.of(self.jobs_folder, job.id)
            try:
                folder.write(SubmissionRecord(job=job, key=key, policy=_policy_of(options, policy)))
                EventLog(folder.path).append(StateChanged, state="queued")
                added = self.store.add_job(job, key)
            except BaseException:
                # Without its row, nobody has heard of the job.
                shutil.rmtree(folder.path, ignore_errors=True)
                raise
            if added.id != job.id:
                shutil.rmtree(folder.path, ignore_errors=True)
        self.runner.wake()
        return added

    def _check_limit(self, who: Principal) -> None:
        unfinished = [*self.store.queued(), *(stored.job for stored in self.store.active())]
        own = sum(job.submitted_by == who.name for job in unfinished)
        if own >= self.settings.max_jobs_per_token:
            raise LimitError(
                f"the token {who.name!r} has {own} jobs that have not ended; wait for them, or cancel some "
                "(`max_jobs_per_token` of the service's config file)"
            )


def merged(kind: JobKind, given: Mapping[str, Any], target: Target | None) -> dict[str, Any]:
    """The options of a job: those given, and the target's for the others.

    Of a measurement, the target's search options are left out; of a night, its policy is added.
    """
    if target is None:
        return dict(given)
    defaults = dict(target.job)
    if kind == "measure":
        defaults = {
            name: value for name, value in defaults.items() if name in MeasureJob.model_fields and name not in _SEARCH
        }
        models = defaults.get("model")
        if isinstance(models, list) and len(models) == 1:
            defaults["model"] = models[0]
    elif kind == "nightly":
        policy = target.policy
        defaults |= {
            "action": policy.action,
            "min_gain": policy.min_gain,
            "min_regression": policy.min_regression,
        }
    return {**defaults, **given}


# Options of a target that mean something else in a measurement.
_SEARCH = frozenset({"slo", "rate", "precision", "time"})


def _policy_of(options: JobOptions, policy: Policy | None) -> Policy:
    """What the night does with an improvement."""
    if not isinstance(options, NightlyJob):
        return policy or Policy()
    known = (policy or Policy()).model_dump()
    return Policy(
        action="apply" if options.action == "apply" else "propose",
        min_gain=known["min_gain"] if options.min_gain is None else options.min_gain,
        min_regression=known["min_regression"] if options.min_regression is None else options.min_regression,
    )


def _models_of(options: JobOptions) -> tuple[str, ...]:
    return tuple(filter(None, (options.model,))) if isinstance(options, MeasureJob) else options.model


def _digest(submission: Submission) -> str:
    return sha256(json.dumps(submission.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def _page(items: Sequence[Item], kind: str, cursor: str | None, limit: int) -> Page[Item]:
    """A page of a list that only grows at its end; the cursor is the number of items before."""
    start, limit = number_of(cursor, kind) or 0, checked_limit(limit)
    numbered = list(enumerate(items[start : start + limit + 1], start + 1))
    page = page_of(numbered, limit, kind, lambda entry: entry[0])
    return Page[Item].model_construct(items=tuple(item for _, item in page.items), next=page.next)


def _artifacts(folder: JobFolder) -> list[Artifact]:
    found = []
    for parent, folders, files in os.walk(folder.path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = (Path(parent) / name).relative_to(folder.path).as_posix()
            if (file := folder.artifact(path)) is None:
                continue
            with suppress(OSError):  # removed meanwhile
                status = file.stat()
                modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
                found.append(Artifact(path=path, size=status.st_size, modified_at=modified))
    return sorted(found, key=lambda artifact: artifact.path)
