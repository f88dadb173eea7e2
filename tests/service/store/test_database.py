from __future__ import annotations

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from support.postgres import emptied, running_postgres
from support.stored import job

from tuner.core.errors import JobError
from tuner.service.errors import StoreUnavailableError
from tuner.service.store import database
from tuner.service.store.jobs import JobFilter, _ids
from tuner.service.store.schema import VERSION_TABLE
from tuner.service.store.store import Store
from tuner.service.store.tables import METADATA


def test_the_steps_lead_to_the_tables(place: str) -> None:
    with Store.opened(place) as store, store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_a_database_of_a_later_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    with Store.opened(f"sqlite:///{path}") as store, store.writing() as connection:
        connection.execute(sql.table(VERSION_TABLE, sql.column("version_num")).update().values(version_num="9999"))
    before = path.read_bytes()
    with (
        pytest.raises(JobError, match="has schema 9999 of a later tritontune; .* up to 0001.*update tritontune"),
        Store.opened(f"sqlite:///{path}"),
    ):
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not a database URL; give sqlite:///PATH or postgresql://"),
        ("mysql://u:s3cret@h/d", "mysql databases are not supported"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:////dev/null/service.db", "/dev/null: cannot be made: "),
    ],
)
def test_a_wrong_url_is_said(url: str, message: str) -> None:
    with pytest.raises(JobError, match=f"--database: .*{message}") as told, Store.opened(url):
        pass
    assert "s3cret" not in str(told.value)


def test_a_file_that_is_no_database_is_said_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    path.write_bytes(b"not a database, and longer than its header" * 100)
    before = path.read_bytes()
    with (
        pytest.raises(StoreUnavailableError, match="service.db: file is not a database"),
        Store.opened(f"sqlite:///{path}"),
    ):
        pass
    assert path.read_bytes() == before


def test_foreign_keys_and_the_log_ahead_are_on(tmp_path: Path) -> None:
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store, store.reading() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("foreign_keys", "journal_mode")]
    assert settings == [1, "wal"]


def test_a_locked_database_is_said_in_time_and_works_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_S", 0.3)
    path = tmp_path / "service.db"
    with Store.opened(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="service.db: database is locked"):
            store.add_job(job(1))
        assert store.jobs().items == ()  # readers do not wait
        other.execute("ROLLBACK")
        other.close()
        store.add_job(job(1))


def test_a_full_disk_is_said_and_the_store_works_again(tmp_path: Path) -> None:
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
        store.add_job(job(1))

        def limit(connection: sqlite3.Connection, _: object, __: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {most[0]}")

        most = [1]
        sql.event.listen(store._engine, "checkout", limit)
        with pytest.raises(StoreUnavailableError, match="database or disk is full"):
            store.add_job(job(2, job={"note": "x" * 1_000_000}))
        assert [each.id for each in store.jobs().items] == [1]
        most[0] = 1_000_000
        store.add_job(job(2, job={"note": "x" * 1_000_000}))


def test_an_unreachable_server_is_said_without_its_password() -> None:
    began = time.monotonic()
    with (
        pytest.raises(StoreUnavailableError, match="refused") as told,
        Store.opened("postgresql://tuner:s3cret-word@127.0.0.1:1/db"),
    ):
        pass
    assert "s3cret" not in str(told.value)
    assert "tuner:***@127.0.0.1:1/db" in str(told.value)
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_server_that_was_down_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a new connection by hand, from several threads, and with a hold that goes on."""
    monkeypatch.setattr(database, "WAIT_S", 2)
    with running_postgres() as server, Store.opened(server.url) as store, store.hold(lease_s=300) as hold:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: store.add_job(job(number)), range(1, 9)))
            server.stop()
            for use in (store.check, store.jobs, store.next_job_id, lambda: store.change_job(1, among=["queued"])):
                with pytest.raises(StoreUnavailableError, match=r"tuner:\*\*\*@127.0.0.1") as told:
                    use()
                assert "s3cret" not in str(told.value)
            server.start()
            store.check()
            assert list(pool.map(lambda _: len(store.jobs().items), range(8))) == [8] * 8
        assert store.change_job(1, among=["queued"], state="starting").version == 2
        assert store.holder() == hold.holder
        assert not hold.lost.is_set()


@pytest.mark.slow
def test_a_server_that_is_frozen_is_said_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own limits do not help then, and the kernel still accepts connections."""
    monkeypatch.setattr(database, "WAIT_S", 1)
    with running_postgres() as server, Store.opened(server.url) as store:
        store.add_job(job(1))
        message = r"\*\*\*@127.0.0.1.*(did not answer|timeout)"
        with server.frozen(), pytest.raises(StoreUnavailableError, match=message):
            store.jobs()
        assert len(store.jobs().items) == 1


@pytest.mark.slow
def test_a_server_that_hangs_is_said_in_time(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_S", 1)
    import psycopg  # noqa: PLC0415 (only where there is a server)

    with Store.opened(emptied(server)) as store:
        store.add_job(job(1))
        with psycopg.connect(server) as connection:
            connection.execute("LOCK TABLE tritontune_jobs")
            with pytest.raises(StoreUnavailableError, match="timeout"):
                store.jobs()
        assert len(store.jobs().items) == 1


def test_pages_of_many_jobs_are_read_by_an_index(tmp_path: Path) -> None:
    """However many jobs there are, a page reads about as many rows as it shows."""
    with Store.opened(f"sqlite:///{tmp_path}/service.db") as store:
        for wanted in (
            JobFilter(),
            JobFilter(states=["failed"]),
            JobFilter(states=["failed", "queued"], kinds=["tune"]),
            JobFilter(target="a"),
            JobFilter(schedule="a"),
            JobFilter(model="a"),
        ):
            query = _ids(wanted, 100, 10)
            with store.reading() as connection:
                compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
                plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
            used = [step for step in plan if "tritontune_" in step]
            assert used
            assert all(step.startswith("SEARCH") for step in used), plan
            assert wanted.states or not any("TEMP B-TREE" in step for step in plan), plan
