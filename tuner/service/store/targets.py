"""Targets and schedules in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sql

from tuner.client.resources import Page, Schedule, ScheduleSpec, Target, TargetSpec
from tuner.service.cron import check_schedule, next_start
from tuner.service.documents import parsed
from tuner.service.errors import ConflictError
from tuner.service.store.copies import schedule_copies, target_copies
from tuner.service.store.database import Clock, Database, utc_now
from tuner.service.store.named import NamedRows
from tuner.service.store.tables import SCHEDULES, TARGETS


class Targets(Database):
    """The targets and schedules.

    `if_version` is the version that a resource must have, 0 if there must be none, and None for any. All methods raise
    StoreUnavailableError when the database does not answer.
    """

    def __init__(self, url: str, clock: Clock = utc_now, data: Path | None = None) -> None:
        super().__init__(url, clock)
        targets, schedules = (target_copies(data), schedule_copies(data)) if data else (None, None)
        self._targets = NamedRows(self, TARGETS, kind="target", type_=Target, columns=lambda _: {}, copies=targets)
        self._schedules = NamedRows(
            self, SCHEDULES, kind="schedule", type_=Schedule, columns=_columns, copies=schedules
        )

    def put_target(self, name: str, spec: TargetSpec, *, if_version: int | None = None) -> Target:
        """Add or replace a target.

        Raises:
            ConflictError: it has another version.
        """
        now = self.clock()

        def made(before: Target | None) -> Target:
            return Target(name=name, created_at=before.created_at if before else now, updated_at=now, **dict(spec))

        return self._targets.put(name, made, if_version=if_version)

    def target(self, name: str) -> Target:
        """A target. Its `deployed` is empty: `histories.py` tells it.

        Raises:
            NotFoundError: there is no such target.
        """
        return self._targets.get(name)

    def targets(self, *, cursor: str | None = None, limit: int = 50) -> Page[Target]:
        """A page of targets, by name; arguments and errors as for `jobs`."""
        return self._targets.page(cursor=cursor, limit=limit)

    def remove_target(self, name: str, *, if_version: int | None = None) -> None:
        """Remove a target. Its jobs and their results stay.

        Raises:
            NotFoundError: there is no such target.
            ConflictError: it has another version, or a schedule uses it.
        """
        with self.reading() as connection:
            query = sql.select(SCHEDULES.c.name).where(SCHEDULES.c.target == name.replace("\0", " "))
            users = connection.execute(query.order_by(SCHEDULES.c.name)).scalars().all()
        if users:
            raise ConflictError(f"target {name!r} is used by schedule {users[0]!r}; remove the schedule first")
        self._targets.remove(name, if_version=if_version)

    def put_schedule(self, name: str, spec: ScheduleSpec, *, if_version: int | None = None) -> Schedule:
        """Add or replace a schedule. Its next start is computed here.

        Raises:
            JobError: its cron expression, time zone or window is wrong.
            NotFoundError: its target does not exist.
            ConflictError: it has another version.
        """
        check_schedule(spec)
        self.target(spec.target)
        now = self.clock()

        def made(before: Schedule | None) -> Schedule:
            return Schedule(
                name=name,
                created_at=before.created_at if before else now,
                updated_at=now,
                next_at=next_start(spec, now) if spec.enabled else None,
                last_job=before.last_job if before else None,
                **{field: getattr(spec, field) for field in ScheduleSpec.model_fields},
            )

        return self._schedules.put(name, made, if_version=if_version)

    def schedule(self, name: str) -> Schedule:
        """A schedule.

        Raises:
            NotFoundError: there is no such schedule.
        """
        return self._schedules.get(name)

    def schedules(self, *, cursor: str | None = None, limit: int = 50) -> Page[Schedule]:
        """A page of schedules, by name; arguments and errors as for `jobs`."""
        return self._schedules.page(cursor=cursor, limit=limit)

    def remove_schedule(self, name: str, *, if_version: int | None = None) -> None:
        """Remove a schedule. Its jobs stay.

        Raises:
            NotFoundError: there is no such schedule.
            ConflictError: it has another version.
        """
        self._schedules.remove(name, if_version=if_version)

    def due_schedules(self, now: datetime) -> Sequence[Schedule]:
        """The schedules whose next start has come, the earliest first."""
        query = (
            sql.select(SCHEDULES.c.document)
            .where(SCHEDULES.c.next_at <= sortable(now))
            .order_by(SCHEDULES.c.next_at, SCHEDULES.c.name)
        )
        with self.reading() as connection:
            return [parsed(Schedule, document) for document in connection.execute(query).scalars()]

    def advance_schedule(self, schedule: Schedule, **changes: Any) -> Schedule | None:
        """Record what became of a start.

        The version stays, so that a start is no conflict for a user who edits the schedule.

        Args:
            schedule: The schedule as it was.
            changes: `next_at`, `last_job` and `note`.

        Returns:
            The schedule; None: the user has changed or removed it meanwhile, and nothing was recorded.
        """
        with self.writing() as connection:
            now = self._schedules.find(connection, schedule.name, lock=True)
            if now is None or now.version != schedule.version:
                return None
            new = now.model_copy(update=changes)
            self._schedules.store(connection, new, is_new=False)
        return self._schedules.keep(new)

    def sync_copies(self) -> None:
        """Make the copies of targets and schedules in the data folder equal to the rows."""
        self._targets.sync_copies()
        self._schedules.sync_copies()


def _columns(schedule: Schedule) -> dict[str, str | None]:
    """The columns of a schedule's row beside its name, version and document."""
    return {"target": schedule.target, "next_at": sortable(schedule.next_at) if schedule.next_at else None}


def sortable(at: datetime) -> str:
    """A time as text that sorts as the time does."""
    return at.astimezone(timezone.utc).isoformat(timespec="microseconds")
