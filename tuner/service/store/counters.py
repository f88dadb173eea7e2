"""The numbers of resources."""

from __future__ import annotations

import sqlalchemy as sql

from tuner.service.store.tables import COUNTERS


def next_number(connection: sql.Connection, name: str) -> int:
    """The next number of a kind of resource, within a transaction that writes."""
    of_this = COUNTERS.c.name == name
    connection.execute(COUNTERS.update().where(of_this).values(last=COUNTERS.c.last + 1))
    number: int = connection.execute(sql.select(COUNTERS.c.last).where(of_this)).scalar_one()
    return number


def raise_counter(connection: sql.Connection, name: str, number: int) -> None:
    """Make sure that a number will not be given out again, within a transaction that writes."""
    query = COUNTERS.update().where(COUNTERS.c.name == name, COUNTERS.c.last < number).values(last=number)
    connection.execute(query)
