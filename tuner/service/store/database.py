"""The database of the service: connections, transactions, and its errors in words."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sql
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    TimeoutError,  # noqa: A004 (of the pool)
)

from tuner.core.errors import JobError
from tuner.core.redaction import keep_secret, without_secrets
from tuner.service.errors import StoreUnavailableError

WAIT_S = 5
"""The longest wait for a connection, a lock or a statement, in seconds."""

_OPTION = "--database"
_FORMS = "give sqlite:///PATH or postgresql://USER@HOST/DATABASE"
_OF_THE_DATABASE = {DatabaseError, InterfaceError, InternalError, OperationalError, TimeoutError}
_IMMEDIATE = "tritontune_immediate"


class Clock(Protocol):
    """Tells the time."""

    def __call__(self) -> datetime:
        """Now, UTC."""
        ...


def utc_now() -> datetime:
    """The time of this machine, UTC."""
    return datetime.now(timezone.utc)


class Database:
    """The database of the service.

    Args:
        url: As for `Store.opened`.
        clock: The time of what is stored.

    Raises:
        JobError: the URL is wrong, or names an unknown kind of database.
    """

    def __init__(self, url: str, clock: Clock = utc_now) -> None:
        self.clock = clock
        self._engine, self.place = _engine_of(url)
        self._writer = self._engine.execution_options(**{_IMMEDIATE: True})

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """A transaction that reads.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        with self._telling_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """A transaction that writes. In SQLite it locks the database from its beginning, so that it cannot fail later.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        with self._telling_errors(), self._writer.begin() as connection:
            yield connection

    def check(self) -> None:
        """Check that the database answers.

        Raises:
            StoreUnavailableError: it does not, for at most some seconds.
        """
        with self.reading() as connection:
            connection.execute(sql.text("SELECT 1"))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _telling_errors(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, TimeoutError) as error:
            # Others are errors of a statement, such as a second row with the same key.
            if type(error) not in _OF_THE_DATABASE:
                raise
            raise StoreUnavailableError(f"database {self.place}: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    what = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return without_secrets(what[0].strip())


def _engine_of(text: str) -> tuple[sql.Engine, str]:
    """The engine, and the database for messages."""
    keep_secret("url", text)
    try:
        url = sql.make_url(text)
    except ArgumentError:
        raise JobError(f"{_OPTION}: not a database URL; {_FORMS}") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _sqlite(url)
    if kind in {"postgresql", "postgres"}:
        return _postgresql(url)
    raise JobError(f"{_OPTION}: {kind} databases are not supported; {_FORMS}")


def _sqlite(url: sql.URL) -> tuple[sql.Engine, str]:
    if not url.database or url.database == ":memory:":
        raise JobError(f"{_OPTION}: an SQLite database needs a file: sqlite:///PATH")
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(f"{_OPTION}: {path.parent}: cannot be made: {error.strerror}") from None
    engine = sql.create_engine(
        sql.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": WAIT_S, "check_same_thread": False},
        pool_size=8,
        max_overflow=56,
        pool_timeout=WAIT_S,
    )

    def connected(connection: sqlite3.Connection, _: object) -> None:
        # Python's own BEGIN would come late, and would take no lock.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    def begin(connection: sql.Connection) -> None:
        immediate = connection.get_execution_options().get(_IMMEDIATE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    sql.event.listen(engine, "connect", connected)
    sql.event.listen(engine, "begin", begin)
    return engine, str(path)


def _postgresql(url: sql.URL) -> tuple[sql.Engine, str]:
    if importlib.util.find_spec("psycopg") is None:
        raise JobError(f"{_OPTION}: PostgreSQL needs its driver: pip install 'tritontune[postgres]'")
    milliseconds = WAIT_S * 1000
    limits: dict[str, Any] = {
        "connect_timeout": WAIT_S,
        # A server that vanished from the network answers nothing, not even a refusal.
        "tcp_user_timeout": milliseconds,
        "keepalives_idle": WAIT_S,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "options": " ".join(
            f"-c {name}={milliseconds}"
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        ),
    }
    engine = sql.create_engine(
        url.set(drivername="postgresql+psycopg"),
        # What the URL says itself counts.
        connect_args={name: value for name, value in limits.items() if name not in url.query},
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=16,
        pool_timeout=WAIT_S,
    )
    # Imported here, as SQLite needs no driver.
    from tuner.service.store.bounded import connection_within  # noqa: PLC0415

    # After the server's own limit, whose message says more.
    bounded = connection_within(WAIT_S + 1)

    def connect(_dialect: object, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        return bounded.connect(*arguments, **options)

    sql.event.listen(engine, "do_connect", connect)
    return engine, url.set(query={}).render_as_string(hide_password=True)
