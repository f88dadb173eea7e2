"""Brings the schema of a database up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sql
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tuner.core.errors import JobError
from tuner.service.store.database import Database

VERSION_TABLE = "tritontune_service_schema"
"""Not Alembic's own name, as other programs may use the same database."""

_FOLDER = Path(__file__).with_name("migrations")
_LOCK = 7237118311407
"""A number of our own: PostgreSQL's lock on the schema."""


def migrate(database: Database) -> None:
    """Bring the schema up to date, in one transaction.

    Raises:
        JobError: a later version of tritontune has made the database, which is not changed.
        StoreUnavailableError: the database does not answer.
    """
    script = ScriptDirectory(str(_FOLDER))
    known = {revision.revision for revision in script.walk_revisions()}
    # A database that is up to date is only read.
    with database.reading() as connection:
        present = _present(connection)
    if present == set(script.get_heads()):
        return
    if present - known:
        raise JobError(
            f"database {database.place}: has schema {', '.join(sorted(present))} of a later tritontune; "
            f"this one knows up to {script.get_current_head()}. Nothing was changed: update tritontune"
        )
    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_LOCK)))

        def steps(revision: Any, _: MigrationContext) -> Any:
            return script._upgrade_revs("head", revision)  # noqa: SLF001 (as alembic.command.upgrade does)

        context = MigrationContext.configure(connection, opts={"fn": steps, "version_table": VERSION_TABLE})
        with Operations.context(context):
            context.run_migrations()


def _present(connection: sql.Connection) -> set[str]:
    return set(MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads())
