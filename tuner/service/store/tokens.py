"""Tokens, and the browser sessions that were begun with them. Only digests of their secrets are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from tuner.client.resources import Page, Token
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.store.database import Database
from tuner.service.store.pages import checked_limit, name_of, page_of
from tuner.service.store.tables import SESSIONS, TOKENS


@dataclass(frozen=True)
class StoredToken:
    """A token with the digest of its secret.

    Attributes:
        token: The token.
        digest: SHA-256 of the secret, in hex.
    """

    token: Token
    digest: str


@dataclass(frozen=True)
class Session:
    """The session of a browser.

    Attributes:
        digest: SHA-256 of the cookie, in hex.
        token_id: The token with which it began. It ends with that token.
        created_at: When it began, UTC.
        expires_at: When it ends, UTC.
    """

    digest: str
    token_id: str
    created_at: datetime
    expires_at: datetime


class Tokens(Database):
    """The tokens and sessions."""

    def add_token(self, token: Token, digest: str) -> Token:
        """Add a token.

        Args:
            token: The token.
            digest: SHA-256 of its secret, in hex.

        Raises:
            ConflictError: a token has this name or id.
            StoreUnavailableError: the database does not answer.
        """
        values = {**token.model_dump(mode="json"), "digest": digest}
        try:
            with self.writing() as connection:
                connection.execute(TOKENS.insert().values(values))
        except IntegrityError:
            raise ConflictError(f"token {token.name!r} exists") from None
        return token

    def token_by_id(self, token_id: str) -> StoredToken:
        """A token.

        Raises:
            NotFoundError: there is no such token.
            StoreUnavailableError: the database does not answer.
        """
        with self.reading() as connection:
            row = connection.execute(sql.select(TOKENS).where(TOKENS.c.id == _clean(token_id))).mappings().one_or_none()
        if row is None:
            raise NotFoundError("token", token_id)
        return StoredToken(_token(row), row["digest"])

    def tokens(self, *, cursor: str | None = None, limit: int = 50) -> Page[Token]:
        """A page of tokens, by name; arguments and errors as for `jobs`."""
        after = name_of(cursor, "tokens")
        limit = checked_limit(limit)
        query = sql.select(TOKENS).order_by(TOKENS.c.name).limit(limit + 1)
        if after is not None:
            query = query.where(TOKENS.c.name > after)
        with self.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return page_of([_token(row) for row in rows], limit, "tokens", lambda token: token.name)

    def remove_token(self, token_id: str) -> None:
        """Remove a token, and its sessions.

        Raises:
            NotFoundError: there is no such token.
            StoreUnavailableError: the database does not answer.
        """
        with self.writing() as connection:
            if not connection.execute(TOKENS.delete().where(TOKENS.c.id == _clean(token_id))).rowcount:
                raise NotFoundError("token", token_id)

    def touch_token(self, token_id: str, at: datetime) -> None:
        """Record when a token was last used. A missing token is no error.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        query = TOKENS.update().where(TOKENS.c.id == _clean(token_id)).values(last_used_at=at.isoformat())
        with self.writing() as connection:
            connection.execute(query)

    def add_session(self, session: Session) -> None:
        """Add a session, and remove those that have ended.

        Raises:
            NotFoundError: its token does not exist.
            StoreUnavailableError: the database does not answer.
        """
        try:
            with self.writing() as connection:
                connection.execute(SESSIONS.delete().where(SESSIONS.c.expires_at <= session.created_at.isoformat()))
                values = {
                    "digest": session.digest,
                    "token_id": session.token_id,
                    "created_at": session.created_at.isoformat(),
                    "expires_at": session.expires_at.isoformat(),
                }
                connection.execute(SESSIONS.insert().values(values))
        except IntegrityError:
            raise NotFoundError("token", session.token_id) from None

    def session(self, digest: str) -> Session:
        """A session, also one that has expired and was not yet removed.

        Raises:
            NotFoundError: there is no such session.
            StoreUnavailableError: the database does not answer.
        """
        with self.reading() as connection:
            row = connection.execute(sql.select(SESSIONS).where(SESSIONS.c.digest == digest)).one_or_none()
        if row is None:
            raise NotFoundError("session", "of this cookie")
        return Session(
            row.digest,
            row.token_id,
            datetime.fromisoformat(row.created_at),
            datetime.fromisoformat(row.expires_at),
        )

    def remove_session(self, digest: str) -> None:
        """Remove a session. A missing one is no error.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        with self.writing() as connection:
            connection.execute(SESSIONS.delete().where(SESSIONS.c.digest == digest))


def _token(row: sql.RowMapping) -> Token:
    return Token.model_validate({name: row[name] for name in Token.model_fields})


def _clean(token_id: str) -> str:
    # PostgreSQL takes no NUL; no id has one.
    return token_id.replace("\0", " ")
