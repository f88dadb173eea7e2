"""Everything that the REST API and the dashboard do: each operation checks who asks, then what is asked."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tuner.client.resources import (
    Artifact,
    Front,
    Host,
    Job,
    JobHost,
    JobKind,
    JobProgress,
    JobState,
    ModelResult,
    NewToken,
    NightEntry,
    Page,
    Policy,
    Proposal,
    ProposalState,
    Schedule,
    ScheduleSpec,
    Submission,
    Target,
    TargetSpec,
    Token,
    TokenSpec,
    Trial,
)
from tuner.core.redaction import HIDDEN, without_known_secrets
from tuner.jobs.event_log import EventLog
from tuner.jobs.events import FINAL, Event, StateChanged
from tuner.nightly.jobs import NightlyJob
from tuner.options.measure_job import MeasureJob
from tuner.service.auth import Authentication, Principal
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.histories import Histories
from tuner.service.job_folder import JobFolder, SubmissionKey, SubmissionRecord
from tuner.service.job_view import LogLine
from tuner.service.policy import AllowList, JobOptions, check_size, resolve
from tuner.service.proposals import ProposalDesk
from tuner.service.refusals import ForbiddenError, LimitError, StaleError
from tuner.service.schedules import Start
from tuner.service.secrets import Secrets
from tuner.service.settings import ServiceSettings
from tuner.service.store.database import Clock, utc_now
from tuner.service.store.jobs import JobFilter
from tuner.service.store.pages import checked_limit, number_of, page_of
from tuner.service.store.proposals import ProposalFilter
from tuner.service.store.store import Store

Item = TypeVar("Item")

HISTORY = "nightly/history.db"
"""The history of all nights, in the data folder."""

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

    def is_alive(self) -> bool:
        """Whether its thread runs."""


class View(Protocol):
    """What the service needs of a `JobView`."""

    @property
    def trials(self) -> Sequence[Trial]:
        """The trials, in order of their beginning."""

    @property
    def hosts(self) -> Sequence[JobHost]:
        """The hosts of a job that has several slots; else empty."""

    @property
    def progress(self) -> JobProgress:
        """How far the job is."""

    @property
    def results(self) -> Sequence[ModelResult]:
        """The best of each model so far."""

    @property
    def state(self) -> StateChanged | None:
        """The last change of the state."""

    @property
    def phase(self) -> str | None:
        """The part of the work."""

    @property
    def seq(self) -> int:
        """Number of the last event."""

    def latest_lines(self, after: int = 0) -> Sequence[LogLine]:
        """The latest events in words, after a number."""

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
        desk: Carries out decisions on proposals; None: a new one.
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
        desk: ProposalDesk | None = None,
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
        self.desk = desk or ProposalDesk(store, self.jobs_folder, clock)
        self.histories = Histories(data / HISTORY, store)
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
        *,
        window_s: float | None = None,
    ) -> Job:
        """Submit a job.

        Args:
            who: Who asks; needs the role submit.
            submission: What is asked.
            key: The `Idempotency-Key`: the same key and submission of the same token give the same job.
            schedule: The schedule that submits it.
            window_s: Time within which a night must end, in seconds; None: the default of nights.

        Raises:
            ForbiddenError: the role, or the config file of the service, does not allow it.
            JobError: an option is wrong.
            NotFoundError: there is no such target.
            ConflictError: the key was used with another submission.
            LimitError: the token has too many jobs that have not ended.
        """
        who.require("submit")
        check_size(submission.job)
        stored_key = SubmissionKey(who.token_id, key, _digest(submission.model_dump())) if key else None
        if stored_key and (earlier := self.store.job_of_key(stored_key)):
            return earlier
        target = self.store.target(submission.target) if submission.target else None
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
            window_s=window_s,
        )

    def retry(self, who: Principal, job_id: int, key: str | None = None) -> Job:
        """Submit a job that has ended once more, with its options. Needs the role submit.

        Args:
            who: Who asks.
            job_id: The job.
            key: As for `submit`.

        Raises:
            ForbiddenError: see `submit`.
            NotFoundError: there is no such job.
            ConflictError: it has not ended, or the key was used for something else.
            LimitError: see `submit`.
        """
        who.require("submit")
        stored_key = SubmissionKey(who.token_id, key, _digest({"retry_of": job_id})) if key else None
        if stored_key and (earlier := self.store.job_of_key(stored_key)):
            return earlier
        job = self._live(self.store.job(job_id))
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
        return self._add(who, again, policy=JobFolder.of(self.jobs_folder, job_id).read().policy, key=stored_key)

    def cancel(self, who: Principal, job_id: int, *, if_version: int | None = None) -> Job:
        """Cancel a job. It is `cancelling` until its last server is gone. Needs the role submit.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it has ended.
            StaleError: it has another version than `if_version`.
        """
        who.require("submit")
        if if_version is not None and (now := self.store.job(job_id).version) != if_version:
            raise StaleError(f"job {job_id} has version {now}, not {if_version}")
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

    def hosts_of_job(self, who: Principal, job_id: int, *, cursor: str | None = None, limit: int = 50) -> Page[JobHost]:
        """A page of the hosts of a job that has several slots; else empty. Needs the role read.

        Raises:
            NotFoundError: there is no such job.
            CursorError: the cursor is not one of this list.
        """
        return _page(self.view(who, job_id).hosts, "hosts of job", cursor, limit)

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
        """A file of a job, by its path within the job's folder, or within its `run/`. Needs the role read.

        Raises:
            NotFoundError: there is no such job, or no such file within its folder.
        """
        folder = self.folder(who, job_id)
        file = folder.artifact(path) or folder.artifact(f"run/{path}")
        if file is None:
            raise NotFoundError("file", path)
        return file

    def log(self, who: Principal, job_id: int, file: Path | None = None) -> Iterator[str]:
        """The lines of a log of a job, without secrets. Needs the role read.

        Args:
            who: Who asks.
            job_id: The job.
            file: The file, of `artifact`; None: `job.log`.

        Raises:
            NotFoundError: there is no such job.
        """
        who.require("read")
        job = self.store.job(job_id)
        file = file or JobFolder.of(self.jobs_folder, job_id).log
        return _redacted(file, list(self.secrets.values(job.job).values()))

    def last_event(self, who: Principal, job_id: int) -> int:
        """The number of the last event of a job. Needs the role read."""
        return EventLog(self.folder(who, job_id).path).last_seq()

    # Targets and schedules

    def targets(self, who: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[Target]:
        """A page of targets, by name. Needs the role read.

        Raises:
            CursorError: the cursor is not one of this list.
        """
        who.require("read")
        page = self.store.targets(cursor=cursor, limit=limit)
        return Page[Target].model_construct(items=self.histories.with_deployed(page.items), next=page.next)

    def target(self, who: Principal, name: str) -> Target:
        """A target. Needs the role read.

        Raises:
            NotFoundError: there is no such target.
        """
        who.require("read")
        return self.histories.with_deployed([self.store.target(name)])[0]

    def put_target(self, who: Principal, name: str, spec: TargetSpec, *, if_version: int | None = None) -> Target:
        """Add or replace a target. Needs the role submit; approve, if one of both versions deploys without approval.

        Args:
            who: Who asks.
            name: Its name.
            spec: What it is to be.
            if_version: The version that it must have; 0: there must be none; None: any.

        Raises:
            ForbiddenError: the role, or the config file of the service, does not allow it.
            JobError: an option is wrong.
            StaleError: it has another version.
        """
        who.require("submit")
        options = merged("nightly", {}, _as_target(name, spec))
        _, stored = self.allow.checked("nightly", options, who.role)
        self._check_may_change(who, name)
        # What the policy has added does not belong into the job.
        job = {option: value for option, value in stored.items() if option in spec.job}
        with self._stale(lambda: self.store.target(name), if_version):
            return self.store.put_target(name, spec.model_copy(update={"job": job}), if_version=if_version)

    def remove_target(self, who: Principal, name: str, *, if_version: int | None = None) -> None:
        """Remove a target; its jobs and their results stay. Needs the role that `put_target` needs.

        Raises:
            ForbiddenError: the role does not allow it.
            NotFoundError: there is no such target.
            ConflictError: a schedule uses it.
            StaleError: it has another version.
        """
        who.require("submit")
        self._check_may_change(who, name)
        with self._stale(lambda: self.store.target(name), if_version):
            self.store.remove_target(name, if_version=if_version)

    def schedules(self, who: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[Schedule]:
        """A page of schedules, by name. Needs the role read.

        Raises:
            CursorError: the cursor is not one of this list.
        """
        who.require("read")
        return self.store.schedules(cursor=cursor, limit=limit)

    def schedule(self, who: Principal, name: str) -> Schedule:
        """A schedule. Needs the role read.

        Raises:
            NotFoundError: there is no such schedule.
        """
        who.require("read")
        return self.store.schedule(name)

    def put_schedule(self, who: Principal, name: str, spec: ScheduleSpec, *, if_version: int | None = None) -> Schedule:
        """Add or replace a schedule. Needs the role submit; approve, if its target deploys without approval.

        Raises:
            ForbiddenError: the role does not allow it.
            JobError: the cron expression, time zone or window is wrong, or the target has no options for this kind.
            NotFoundError: there is no such target.
            StaleError: it has another version; see `put_target`.
        """
        who.require("submit")
        self.allow.checked(spec.kind, merged(spec.kind, {}, self.store.target(spec.target)), who.role)
        with self._stale(lambda: self.store.schedule(name), if_version):
            return self.store.put_schedule(name, spec, if_version=if_version)

    def remove_schedule(self, who: Principal, name: str, *, if_version: int | None = None) -> None:
        """Remove a schedule; its jobs stay. Needs the role submit.

        Raises:
            NotFoundError: there is no such schedule.
            StaleError: it has another version.
        """
        who.require("submit")
        with self._stale(lambda: self.store.schedule(name), if_version):
            self.store.remove_schedule(name, if_version=if_version)

    def submit_scheduled(self, start: Start) -> Job:
        """Submit the job of a schedule; errors as for `submit`."""
        name = f"schedule {start.schedule.name}"
        # Who made the schedule was allowed to deploy; what the config file allows is checked again.
        who = Principal(name, "approve", name)
        return self.submit(who, start.submission, start.key, schedule=start.schedule.name, window_s=start.window_s)

    # Proposals

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
        """A page of proposals, the newest first. Needs the role read.

        Raises:
            CursorError: the cursor is not one of this list.
        """
        who.require("read")
        wanted = ProposalFilter(states=(state,) if state else (), target=target, job=job)
        return self.store.proposals(wanted, cursor=cursor, limit=limit)

    def proposal(self, who: Principal, proposal_id: int) -> Proposal:
        """A proposal. Needs the role read.

        Raises:
            NotFoundError: there is no such proposal.
        """
        who.require("read")
        return self.store.proposal(proposal_id)

    def approve(self, who: Principal, proposal_id: int, reason: str = "", *, if_version: int | None = None) -> Proposal:
        """Deploy the files of a proposal, all or none. Needs the role approve.

        Args:
            who: Who approves.
            proposal_id: The proposal.
            reason: Why.
            if_version: The version that it must have; None: any.

        Raises:
            ForbiddenError: the role does not allow it.
            NotFoundError: there is no such proposal.
            ConflictError: it is not open; or it was withdrawn now, as the deployed files have changed; or a file cannot
                be written, and nothing was changed.
            StaleError: it has another version.
        """
        who.require("approve")
        with self._stale(lambda: self.store.proposal(proposal_id), if_version):
            return self.desk.approve(proposal_id, who.name, reason, if_version=if_version)

    def reject(self, who: Principal, proposal_id: int, reason: str = "", *, if_version: int | None = None) -> Proposal:
        """Reject a proposal. Needs the role approve; arguments and errors as for `approve`."""
        who.require("approve")
        with self._stale(lambda: self.store.proposal(proposal_id), if_version):
            return self.desk.reject(proposal_id, who.name, reason, if_version=if_version)

    # History, hosts and tokens

    def history(
        self,
        who: Principal,
        *,
        target: str | None = None,
        model: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[NightEntry]:
        """A page of nights, the newest first. Needs the role read.

        Args:
            who: Who asks.
            target: Only nights of this target; None: all.
            model: Only nights of this model; None: all.
            cursor: `next` of the page before; None: the first page.
            limit: The most nights on the page.

        Raises:
            NotFoundError: there is no such target.
            CursorError: the cursor is not one of this list.
        """
        who.require("read")
        chosen = None if target is None else self.store.target(target)
        return self.histories.nights(chosen, model, cursor=cursor, limit=limit)

    def hosts(self, who: Principal, *, cursor: str | None = None, limit: int = 50) -> Page[Host]:
        """The hosts with their slots. Needs the role read.

        Raises:
            CursorError: the cursor is not one of this list.
        """
        who.require("read")
        return _page([self.runner.host()], "hosts", cursor, limit)

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

    def _check_may_change(self, who: Principal, name: str) -> None:
        """Check the role for a target, which may deploy without approval by now."""
        with suppress(NotFoundError):
            if self.store.target(name).policy.action != "propose" and not who.may("approve"):
                raise ForbiddenError(f"target {name!r} deploys without approval; to change it needs the role approve")

    @contextmanager
    def _stale(self, now: Callable[[], Target | Schedule | Proposal], if_version: int | None) -> Iterator[None]:
        """Tell a conflict of versions from others."""
        try:
            yield
        except ConflictError as error:
            if if_version is not None:
                try:
                    version = now().version
                except NotFoundError:
                    version = 0
                if version != if_version:
                    raise StaleError(str(error)) from None
            raise

    def _live(self, job: Job) -> Job:
        """The job with its progress, if it runs. Its end is told by its events, which the stored row follows."""
        if job.state not in {"starting", "running", "cancelling"}:
            return job
        view = self.views.of(job.id)
        told = {"progress": view.progress, "results": tuple(view.results), "phase": view.phase or job.phase}
        if (last := view.state) and last.state in FINAL:
            told |= {"state": last.state, "reason": last.reason, "exit_code": last.exit_code, "ended_at": last.at}
        return job.model_copy(update=told)

    def _add(
        self,
        who: Principal,
        job: Job,
        *,
        policy: Policy | None,
        key: SubmissionKey | None,
        window_s: float | None = None,
    ) -> Job:
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
                folder.write(SubmissionRecord(job=job, key=key, policy=_policy_of(options, policy), window_s=window_s))
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
        own = self.store.count_unfinished(who.name)
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


# Characters of a log that are read at once.
_LONGEST_LINE = 1 << 20
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


def _as_target(name: str, spec: TargetSpec) -> Target:
    now = utc_now()
    return Target(name=name, job=spec.job, policy=spec.policy, created_at=now, updated_at=now)


def _redacted(file: Path, secrets: Sequence[str]) -> Iterator[str]:
    """The lines of a text file, with these and other known secrets replaced."""
    longest_first = sorted(secrets, key=len, reverse=True)
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as lines:
            while line := lines.readline(_LONGEST_LINE):
                for secret in longest_first:
                    line = line.replace(secret, HIDDEN)
                yield without_known_secrets(line)
    except FileNotFoundError:
        return


def _models_of(options: JobOptions) -> tuple[str, ...]:
    return tuple(filter(None, (options.model,))) if isinstance(options, MeasureJob) else options.model


def _digest(body: Mapping[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True, default=str).encode()).hexdigest()


def _page(items: Sequence[Item], kind: str, cursor: str | None, limit: int) -> Page[Item]:
    """A page of a list that only grows at its end; the cursor is the number of items before."""
    start, limit = number_of(cursor, kind) or 0, checked_limit(limit)
    numbered = list(enumerate(items[start : start + limit + 1], start + 1))
    page = page_of(numbered, limit, kind, lambda entry: entry[0])
    return Page.model_construct(items=tuple(item for _, item in page.items), next=page.next)


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
