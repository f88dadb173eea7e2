"""The jobs in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, get_args

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from tuner.client.resources import FINAL, Job, JobKind, JobState, Page
from tuner.service.documents import parsed
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.job_folder import SubmissionKey
from tuner.service.store import tables
from tuner.service.store.counters import next_number, raise_counter
from tuner.service.store.database import Database
from tuner.service.store.index import IndexedJob
from tuner.service.store.pages import LARGEST_ID, checked_limit, number_of, page_of

_JOBS = tables.JOBS
_DOCUMENTS = tables.JOB_DOCUMENTS
_MODELS = tables.JOB_MODELS
_KEYS = tables.SUBMISSION_KEYS
JOB_COUNTER = "jobs"
"""Name of the counter of ids."""

ACTIVE: tuple[JobState, ...] = ("starting", "running", "cancelling")
"""The states of a job with a process."""
UNFINISHED: tuple[JobState, ...] = ("queued", *ACTIVE)
"""The states of a job that has not ended."""


class _Unchanged(Enum):
    UNCHANGED = "unchanged"


Unchanged = Literal[_Unchanged.UNCHANGED]
UNCHANGED: Final = _Unchanged.UNCHANGED
"""The value stays as it is."""


@dataclass(frozen=True)
class StoredJob:
    """A job with what only the service knows of it.

    Attributes:
        job: The job.
        lease: The text of its process's lease; None: it has no process.
    """

    job: Job
    lease: str | None = None


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are listed. Empty and None: all.

    Attributes:
        states: Their states.
        kinds: Their kinds.
        target: Their target.
        schedule: The schedule that submitted them.
        model: A model of theirs.
        text: Words in their target, schedule, models, repository, SLO, reason or submitter; all must be there, in
            upper or lower case.
    """

    states: Collection[JobState] = ()
    kinds: Collection[JobKind] = ()
    target: str | None = None
    schedule: str | None = None
    model: str | None = None
    text: str = ""


class Jobs(Database):
    """The jobs."""

    def next_job_id(self) -> int:
        """A new id. It is not given out again, also if no job is added with it.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        with self.writing() as connection:
            return next_number(connection, JOB_COUNTER)

    def add_job(self, job: Job, key: SubmissionKey | None = None, *, lease: str | None = None) -> Job:
        """Add a job.

        Args:
            job: The job, with an id of `next_job_id`.
            key: Its key. If it was used before with the same digest, the job of that time is the result.
            lease: The lease of its process.

        Raises:
            ConflictError: the key was used with another digest, or a job has this id.
            StoreUnavailableError: the database does not answer.
        """
        try:
            with self.writing() as connection:
                if key and (earlier := _job_of(connection, key)):
                    return earlier
                insert_jobs(connection, [IndexedJob(job, key, lease)])
        except IntegrityError:
            # The same key came twice at the same time.
            if key and (same := self.job_of_key(key)):
                return same
            raise ConflictError(f"job {job.id} exists") from None
        return job

    def job_of_key(self, key: SubmissionKey) -> Job | None:
        """The job that was submitted with a key; None: there is none.

        Raises:
            ConflictError: the key was used with another digest.
            StoreUnavailableError: the database does not answer.
        """
        with self.reading() as connection:
            return _job_of(connection, key)

    def job(self, job_id: int) -> Job:
        """A job.

        Raises:
            NotFoundError: there is no such job.
            StoreUnavailableError: the database does not answer.
        """
        return self.stored_job(job_id).job

    def stored_job(self, job_id: int) -> StoredJob:
        """A job with its lease; errors as for `job`."""
        with self.reading() as connection:
            return _stored(connection, job_id)

    def jobs(self, wanted: JobFilter = JobFilter(), *, cursor: str | None = None, limit: int = 50) -> Page[Job]:
        """A page of jobs, the newest first.

        Args:
            wanted: Which jobs.
            cursor: `next` of the page before; None: the first page.
            limit: The most jobs on the page, from 1 to 500.

        Raises:
            CursorError: the cursor is not one of this list.
            StoreUnavailableError: the database does not answer.
        """
        before = number_of(cursor, "jobs")
        limit = checked_limit(limit)
        chosen = _ids(wanted, before, limit + 1).subquery()
        query = (
            sql.select(_DOCUMENTS.c.document)
            .join(chosen, chosen.c.id == _DOCUMENTS.c.job_id)
            .order_by(_DOCUMENTS.c.job_id.desc())
        )
        with self.reading() as connection:
            documents = connection.execute(query).scalars().all()
        return page_of([_parsed(each) for each in documents], limit, "jobs", lambda job: job.id)

    def count_jobs(self) -> Mapping[JobState, int]:
        """The number of jobs in each state.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        query = sql.select(_JOBS.c.state, sql.func.count()).group_by(_JOBS.c.state)
        with self.reading() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in get_args(JobState)}

    def count_unfinished(self, submitted_by: str) -> int:
        """The number of jobs of one submitter that have not ended.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        query = sql.select(sql.func.count()).where(
            _JOBS.c.submitted_by == submitted_by.replace("\0", " "), _JOBS.c.state.in_(UNFINISHED)
        )
        with self.reading() as connection:
            count: int = connection.execute(query).scalar_one()
        return count

    def queued(self, limit: int | None = None) -> Sequence[Job]:
        """The queued jobs, by priority, then age.

        Args:
            limit: The most jobs; None: all.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        query = (
            sql.select(_DOCUMENTS.c.document)
            .join(_JOBS, _JOBS.c.id == _DOCUMENTS.c.job_id)
            .where(_JOBS.c.state == "queued")
            .order_by(_JOBS.c.priority.desc(), _JOBS.c.id)
            .limit(limit)
        )
        with self.reading() as connection:
            return [_parsed(document) for document in connection.execute(query).scalars()]

    def active(self) -> Sequence[StoredJob]:
        """The jobs that are starting, running or cancelling, the oldest first.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        query = (
            sql.select(_DOCUMENTS.c.document, _JOBS.c.lease)
            .join(_JOBS, _JOBS.c.id == _DOCUMENTS.c.job_id)
            .where(_JOBS.c.state.in_(ACTIVE))
            .order_by(_JOBS.c.id)
        )
        with self.reading() as connection:
            return [StoredJob(_parsed(document), lease) for document, lease in connection.execute(query)]

    def change_job(
        self,
        job_id: int,
        *,
        among: Collection[JobState],
        lease: str | Unchanged | None = UNCHANGED,
        **changes: Any,
    ) -> Job:
        """Change a job in one transaction. Its version rises by one.

        Args:
            job_id: The job.
            among: The states of which it must be in one.
            lease: The new lease of its process.
            changes: Fields of `Job` with their new values.

        Raises:
            NotFoundError: there is no such job.
            ConflictError: it is in another state; or it has ended, and its state would change.
            StoreUnavailableError: the database does not answer.
        """
        with self.writing() as connection:
            now = _stored(connection, job_id, lock=True)
            if now.job.state not in among:
                raise ConflictError(f"job {job_id} is {now.job.state}, not {_either(among)}")
            changed = Job.model_validate({**dict(now.job), **changes, "version": now.job.version + 1})
            if now.job.state in FINAL and changed.state != now.job.state:
                raise ConflictError(f"job {job_id} has ended ({now.job.state}); it cannot become {changed.state}")
            new = StoredJob(changed, now.lease if lease is UNCHANGED else lease)
            _update(connection, now.job, new)
        return changed

    def job_ids(self) -> set[int]:
        """The ids of all jobs.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        with self.reading() as connection:
            return set(connection.execute(sql.select(_JOBS.c.id)).scalars())


def _stored(connection: sql.Connection, job_id: int, *, lock: bool = False) -> StoredJob:
    query = (
        sql.select(_DOCUMENTS.c.document, _JOBS.c.lease)
        .join(_JOBS, _JOBS.c.id == _DOCUMENTS.c.job_id)
        .where(_JOBS.c.id == job_id)
    )
    if lock:
        query = query.with_for_update()
    row = connection.execute(query).one_or_none() if 0 < job_id <= LARGEST_ID else None
    if row is None:
        raise NotFoundError("job", job_id)
    return StoredJob(_parsed(row.document), row.lease)


def _job_of(connection: sql.Connection, key: SubmissionKey) -> Job | None:
    query = sql.select(_KEYS.c.digest, _KEYS.c.job_id).where(_KEYS.c.token == key.token, _KEYS.c.key == key.key)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.digest != key.digest:
        raise ConflictError(f"Idempotency-Key: job {row.job_id} was submitted with this key and another body")
    return _stored(connection, row.job_id).job


def insert_jobs(connection: sql.Connection, entries: Sequence[IndexedJob]) -> None:
    """Add the rows of jobs, within a transaction that writes."""
    if not entries:
        return
    raise_counter(connection, JOB_COUNTER, max(entry.job.id for entry in entries))
    rows: dict[sql.Table, list[dict[str, Any]]] = {table: [] for table in (_JOBS, _DOCUMENTS, _MODELS, _KEYS)}
    for entry in entries:
        job, key = entry.job, entry.key
        rows[_JOBS].append({"id": job.id, **_columns(StoredJob(job, entry.lease))})
        rows[_DOCUMENTS].append({"job_id": job.id, "document": job.model_dump_json()})
        rows[_MODELS] += ({"model": model, "job_id": job.id} for model in sorted(_models_of(job)))
        if key:
            rows[_KEYS].append({"token": key.token, "key": key.key, "digest": key.digest, "job_id": job.id})
    for table, values in rows.items():
        if values:
            connection.execute(table.insert(), values)


def _update(connection: sql.Connection, old: Job, new: StoredJob) -> None:
    job = new.job
    connection.execute(_JOBS.update().where(_JOBS.c.id == job.id).values(_columns(new)))
    connection.execute(_DOCUMENTS.update().where(_DOCUMENTS.c.job_id == job.id).values(document=job.model_dump_json()))
    before, after = _models_of(old), _models_of(job)
    if gone := before - after:
        connection.execute(_MODELS.delete().where(_MODELS.c.job_id == job.id, _MODELS.c.model.in_(gone)))
    if added := after - before:
        connection.execute(_MODELS.insert(), [{"model": model, "job_id": job.id} for model in sorted(added)])


def _columns(stored: StoredJob) -> dict[str, Any]:
    job = stored.job
    return {
        "state": job.state,
        "kind": job.kind,
        "target": job.target,
        "schedule": job.schedule,
        "submitted_by": job.submitted_by.replace("\0", " "),
        "priority": job.priority,
        "version": job.version,
        "lease": stored.lease,
        "words": _searchable(_words_of(job)),
    }


def _words_of(job: Job) -> Iterable[str]:
    yield from (str(job.id), job.kind, job.state)
    yield from (each for each in (job.target, job.schedule, job.repository, job.host) if each)
    yield from sorted(_models_of(job))
    yield from (job.slo, job.submitted_by, job.reason)


def _searchable(words: Iterable[str]) -> str:
    # PostgreSQL keeps no NUL.
    return "\n".join(words).replace("\0", " ").encode("utf-8", "replace").decode().lower()


def _models_of(job: Job) -> set[str]:
    return {model.replace("\0", " ") for model in (*job.models, *(result.model for result in job.results))}


def _ids(wanted: JobFilter, before: int | None, limit: int) -> sql.Select[tuple[int]] | sql.CompoundSelect[tuple[int]]:
    """The ids of the newest jobs that are wanted.

    For each state and kind alone, an index gives them in order, so that few rows are read.
    """
    states: Collection[JobState | None] = wanted.states or (None,)
    kinds: Collection[JobKind | None] = wanted.kinds or (None,)
    parts = [_newest(wanted, state, kind, before, limit).subquery() for state in states for kind in kinds]
    if len(parts) == 1:
        return sql.select(parts[0].c.id)
    return sql.union_all(*(sql.select(part.c.id) for part in parts)).order_by(sql.desc("id")).limit(limit)


def _newest(
    wanted: JobFilter, state: JobState | None, kind: JobKind | None, before: int | None, limit: int
) -> sql.Select[tuple[int]]:
    id_ = _JOBS.c.id
    query = sql.select(id_)
    if wanted.model is not None:
        id_ = _MODELS.c.job_id
        query = sql.select(id_.label("id")).join(_JOBS, _JOBS.c.id == id_)
        query = query.where(_MODELS.c.model == wanted.model.replace("\0", " "))
    columns = {"state": state, "kind": kind, "target": wanted.target, "schedule": wanted.schedule}
    for name, value in columns.items():
        if value is not None:
            query = query.where(_JOBS.c[name] == value.replace("\0", " "))
    for word in _searchable([wanted.text]).split():
        query = query.where(_JOBS.c.words.contains(word, autoescape=True))
    if before is not None:
        query = query.where(id_ < before)
    return query.order_by(id_.desc()).limit(limit)


def _parsed(document: str) -> Job:
    return parsed(Job, document)


def _either(states: Collection[str]) -> str:
    return " or ".join(sorted(states)) or "in any state"
