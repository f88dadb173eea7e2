from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from support.postgres import emptied, postgres

from tuner.service.store.store import Store
from tuner.service.store.tables import COUNTERS, METADATA


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL of this session's own."""
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new/service.db"
    return emptied(request.getfixturevalue("server"))


@pytest.fixture(scope="module")
def opened_server(server: str) -> Iterator[Store]:
    with Store.opened(emptied(server)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with nothing in it."""
    if request.param == "sqlite":
        with Store.opened(f"sqlite:///{tmp_path}/new/service.db") as opened:
            yield opened
        return
    opened = request.getfixturevalue("opened_server")
    with opened.writing() as connection:
        for table in METADATA.tables.values():
            connection.execute(
                table.update().values(last=0) if table is COUNTERS else sql.text(f"TRUNCATE {table} CASCADE")
            )
    yield opened
