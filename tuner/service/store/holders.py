"""One service at a time uses a database: a row says which, and until when unless it is renewed."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from tuner.core.lease import Lease, boot_id, own_lease
from tuner.core.proc import pid_namespace
from tuner.service.errors import ConflictError, StoreUnavailableError
from tuner.service.store.database import Database
from tuner.service.store.tables import HOLDERS
from tuner.service.threads import running

LEASE_S = 15.0
"""How long a service holds the database after its last renewal, in seconds."""

_POLL_S = 0.5


@dataclass(frozen=True)
class Hold:
    """The hold of a service on the database.

    Attributes:
        name: What is held.
        holder: The holder in words.
        lost: Set when another service has taken over, after this one could not renew its hold in time.
    """

    name: str
    holder: str
    lost: threading.Event = field(default_factory=threading.Event)
    _actions: list[Callable[[], None]] = field(default_factory=list)

    def when_lost(self, action: Callable[[], None]) -> None:
        """Call a function, in another thread, when the hold is lost."""
        self._actions.append(action)
        if self.lost.is_set():
            action()

    def lose(self) -> None:
        """Say that another service has taken over."""
        self.lost.set()
        for action in self._actions:
            action()


@dataclass(frozen=True)
class _Other:
    """Another holder.

    Attributes:
        holder: The holder in words.
        until_s: When its time is over, by the database's clock.
        lives: Whether it is known to live.
    """

    holder: str
    until_s: float
    lives: bool


class Holders(Database):
    """Who uses the database."""

    @contextmanager
    def hold(
        self, name: str = "service", *, holder: str | None = None, wait_s: float = 0, lease_s: float = LEASE_S
    ) -> Iterator[Hold]:
        """Hold the database; a thread renews the hold.

        A holder on this machine that has ended is replaced at once. Another one, as in a container that was killed, is
        replaced when its time is over; if it is renewed instead, it lives. While the database does not answer, the hold
        goes on.

        Args:
            name: What is held.
            holder: The holder in words, for others; None: the host and the process.
            wait_s: How long to wait for another holder that lives, in seconds.
            lease_s: How long the hold lasts without renewal, in seconds.

        Raises:
            ConflictError: another service holds it.
            StoreUnavailableError: the database does not answer.
        """
        # A process may hold it once, too.
        own = f"{own_lease()}/{token_hex(4)}"
        hold = Hold(name, holder or f"process {os.getpid()} on {socket.gethostname()}")
        began, first = time.monotonic(), None
        while other := self._take(hold, own, lease_s):
            first = first or other
            waited_s = time.monotonic() - began
            may_have_ended = not other.lives and other.until_s == first.until_s and waited_s < lease_s + 1
            if waited_s >= wait_s and not may_have_ended:
                raise ConflictError(f"database {self.place}: in use by another service: {other.holder}")
            time.sleep(_POLL_S)
        try:
            with running(partial(self._renew, hold, own, lease_s), "hold"):
                yield hold
        finally:
            # Its time is over soon in any case.
            with suppress(StoreUnavailableError), self.writing() as connection:
                connection.execute(HOLDERS.delete().where(HOLDERS.c.name == name, HOLDERS.c.lease == own))

    def holder(self, name: str = "service") -> str | None:
        """The holder in words; None: there is none.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        query = sql.select(HOLDERS.c.holder).where(HOLDERS.c.name == name)
        with self.reading() as connection:
            found: str | None = connection.execute(query).scalar_one_or_none()
        return found

    def _take(self, hold: Hold, own: str, lease_s: float) -> _Other | None:
        """Take or renew a hold. Returns another holder; None: it is ours."""
        this = HOLDERS.c.name == hold.name
        try:
            with self.writing() as connection:
                now = self._now_s(connection)
                row = connection.execute(sql.select(HOLDERS).where(this).with_for_update()).one_or_none()
                if row and row.lease != own and row.until_s > now:
                    holding = Lease.parse(row.lease.partition("/")[0])
                    if not (holding and holding.abandoned):
                        return _Other(row.holder, row.until_s, lives=holding is not None and _is_here(holding))
                values = {"holder": hold.holder, "lease": own, "until_s": now + lease_s}
                if row:
                    connection.execute(HOLDERS.update().where(this).values(values))
                else:
                    connection.execute(HOLDERS.insert().values(name=hold.name, **values))
        except IntegrityError:
            return _Other("one that started at the same time", math.inf, lives=True)
        return None

    def _renew(self, hold: Hold, own: str, lease_s: float, stop: threading.Event) -> None:
        while not stop.wait(lease_s / 5):
            with suppress(StoreUnavailableError):
                if self._take(hold, own, lease_s):
                    hold.lose()
                    return

    def _now_s(self, connection: sql.Connection) -> float:
        """The time by the database, as services on several hosts use it."""
        if self.dialect == "sqlite":
            return time.time()
        return float(connection.execute(sql.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def _is_here(lease: Lease) -> bool:
    """Whether the process would be seen from here, if it lived."""
    return lease.boot == boot_id() and lease.namespace == pid_namespace()
