"""The store of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sql
from typing_extensions import Self

from tuner.service.store.counters import raise_counter
from tuner.service.store.database import Clock, utc_now
from tuner.service.store.holders import Holders
from tuner.service.store.index import Index
from tuner.service.store.jobs import JOB_COUNTER, Jobs, insert_jobs
from tuner.service.store.proposals import Proposals, insert_proposal
from tuner.service.store.schema import migrate
from tuner.service.store.tables import JOB_DOCUMENTS, JOB_MODELS, JOBS, PROPOSALS, SCHEDULES, SUBMISSION_KEYS, TARGETS
from tuner.service.store.targets import Targets
from tuner.service.store.tokens import Tokens


class Store(Jobs, Targets, Proposals, Tokens, Holders):
    """What the service stores. May be used by several threads."""

    @classmethod
    @contextmanager
    def opened(cls, url: str, *, clock: Clock = utc_now, data: Path | None = None) -> Iterator[Self]:
        """Open the database. An empty one gets its tables; the schema of an earlier version is brought up to date.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`.
            clock: The time of what is stored.
            data: The data folder, which gets copies of targets and schedules; None: there are none.

        Raises:
            JobError: the URL is wrong; or a later version of tritontune has made the database, which is not changed.
            StoreUnavailableError: the database does not answer.
        """
        store = cls(url, clock, data)
        try:
            migrate(store)
            yield store
        finally:
            store.close()

    def replace_index(self, index: Index) -> None:
        """Replace all jobs, targets, schedules and proposals in one transaction. Tokens and sessions stay.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was changed.
        """
        with self.writing() as connection:
            for table in (SUBMISSION_KEYS, JOB_MODELS, JOB_DOCUMENTS, JOBS, SCHEDULES, TARGETS, PROPOSALS):
                connection.execute(table.delete())
            self._add(connection, index)

    def add_index(self, index: Index) -> None:
        """Add what has no row yet, in one transaction.

        Raises:
            StoreUnavailableError: the database does not answer; nothing was changed.
        """
        with self.writing() as connection:
            self._add(connection, index)

    def _add(self, connection: sql.Connection, index: Index) -> None:
        raise_counter(connection, JOB_COUNTER, index.last_job)
        insert_jobs(connection, index.jobs)
        for target in index.targets:
            self._targets.store(connection, target, is_new=True)
        for schedule in index.schedules:
            self._schedules.store(connection, schedule, is_new=True)
        for proposal in index.proposals:
            insert_proposal(connection, proposal)
