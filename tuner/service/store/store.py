"""The store of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from typing_extensions import Self

from tuner.service.store.database import Clock, utc_now
from tuner.service.store.holders import Holders
from tuner.service.store.jobs import Jobs
from tuner.service.store.proposals import Proposals
from tuner.service.store.schema import migrate
from tuner.service.store.targets import Targets
from tuner.service.store.tokens import Tokens


class Store(Jobs, Targets, Proposals, Tokens, Holders):
    """What the service stores. May be used by several threads."""

    @classmethod
    @contextmanager
    def opened(cls, url: str, *, clock: Clock = utc_now) -> Iterator[Self]:
        """Open the database. An empty one gets its tables; the schema of an earlier version is brought up to date.

        Args:
            url: `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`.
            clock: The time of what is stored.

        Raises:
            JobError: the URL is wrong; or a later version of tritontune has made the database, which is not changed.
            StoreUnavailableError: the database does not answer.
        """
        store = cls(url, clock)
        try:
            migrate(store)
            yield store
        finally:
            store.close()
