"""Resources that the user names: targets and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from tuner.client.resources import Page
from tuner.service.documents import parsed
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.store.copies import Copies, Named
from tuner.service.store.database import Database
from tuner.service.store.pages import checked_limit, every, name_of, page_of


class NamedRows(Generic[Named]):
    """The rows of one kind of named resource.

    Args:
        database: The database.
        table: Their table: columns name, version, document, and those of `columns`.
        kind: `target` or `schedule`.
        type_: Their type.
        columns: The values of the table's other columns.
        copies: Their copies, which follow the rows; None: there are none.
    """

    def __init__(
        self,
        database: Database,
        table: sql.Table,
        *,
        kind: str,
        type_: type[Named],
        columns: Callable[[Named], dict[str, str | None]],
        copies: Copies[Named] | None,
    ) -> None:
        self._database, self._table, self._kind = database, table, kind
        self._type: type[Named] = type_
        self._columns: Callable[[Named], dict[str, str | None]] = columns
        self._copies: Copies[Named] | None = copies

    def get(self, name: str) -> Named:
        """One of them; NotFoundError: there is none with this name."""
        with self._database.reading() as connection:
            if found := self.find(connection, name):
                return found
        raise NotFoundError(self._kind, name)

    def page(self, *, cursor: str | None = None, limit: int = 50) -> Page[Named]:
        """A page of them, by name."""
        after = name_of(cursor, f"{self._kind}s")
        limit = checked_limit(limit)
        query = sql.select(self._table.c.document).order_by(self._table.c.name).limit(limit + 1)
        if after is not None:
            query = query.where(self._table.c.name > after)
        with self._database.reading() as connection:
            items = [self._parsed(document) for document in connection.execute(query).scalars()]
        return page_of(items, limit, f"{self._kind}s", lambda item: item.name)

    def put(self, name: str, make: Callable[[Named | None], Named], *, if_version: int | None) -> Named:
        """Add or replace one of them.

        Args:
            name: Its name.
            make: Makes the new one from that before; None: there was none. Its version is set here.
            if_version: The version that it must have; 0: there must be none; None: any.

        Raises:
            ConflictError: it has another version.
        """
        try:
            with self._database.writing() as connection:
                before = self.find(connection, name, lock=True)
                self._check_version(name, before, if_version)
                new = make(before).model_copy(update={"version": before.version + 1 if before else 1})
                self.store(connection, new, is_new=before is None)
        except IntegrityError:
            # Another request added it at the same time.
            raise ConflictError(f"{self._kind} {name!r} was changed at the same time; try again") from None
        return self.keep(new)

    def remove(self, name: str, *, if_version: int | None) -> None:
        """Remove one of them; NotFoundError: there is none with this name; ConflictError: it has another version."""
        with self._database.writing() as connection:
            before = self.find(connection, name, lock=True)
            if before is None:
                raise NotFoundError(self._kind, name)
            self._check_version(name, before, if_version)
            try:
                connection.execute(self._table.delete().where(self._table.c.name == before.name))
            except IntegrityError:
                raise ConflictError(f"{self._kind} {name!r} is used by another resource") from None
        if self._copies:
            self._copies.drop(name)

    def keep(self, item: Named) -> Named:
        """Write the copy of one of them, whose row was written."""
        if self._copies:
            self._copies.keep(item)
        return item

    def sync_copies(self) -> None:
        """Make all copies equal to the rows."""
        if self._copies:
            self._copies.sync(every(self.page))

    def find(self, connection: sql.Connection, name: str, *, lock: bool = False) -> Named | None:
        """One of them, within a transaction; None: there is none with this name."""
        # PostgreSQL takes no NUL; no name has one.
        query = sql.select(self._table.c.document).where(self._table.c.name == name.replace("\0", " "))
        if lock:
            query = query.with_for_update()
        document = connection.execute(query).scalar_one_or_none()
        return None if document is None else self._parsed(document)

    def store(self, connection: sql.Connection, item: Named, *, is_new: bool) -> None:
        """Write the row of one of them, within a transaction."""
        values = {"version": item.version, "document": item.model_dump_json(), **self._columns(item)}
        if is_new:
            connection.execute(self._table.insert().values(name=item.name, **values))
        else:
            connection.execute(self._table.update().where(self._table.c.name == item.name).values(values))

    def _parsed(self, document: str) -> Named:
        item: Named = parsed(self._type, document)
        return item

    def _check_version(self, name: str, before: Named | None, if_version: int | None) -> None:
        now = before.version if before else 0
        if if_version is None or if_version == now:
            return
        what = f"{self._kind} {name!r}"
        if if_version == 0:
            raise ConflictError(f"{what} exists")
        raise ConflictError(f"{what} has version {now}, not {if_version}" if now else f"{what} does not exist")
