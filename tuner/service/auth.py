"""Who asks: tokens, browser sessions, and the code of the login address.

Secrets are random, of 256 bits, so a single round of SHA-256 protects them: the database has the digests alone.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from secrets import token_hex, token_urlsafe

from tuner.client.resources import ROLES, NewToken, Role, Token, TokenSpec
from tuner.core.errors import JobError
from tuner.service.errors import NotFoundError
from tuner.service.refusals import ForbiddenError, UnauthenticatedError
from tuner.service.settings import ServiceSettings
from tuner.service.store.store import Store
from tuner.service.store.tokens import Session as StoredSession
from tuner.service.store.tokens import StoredToken

COOKIE = "tritontune_session"
"""Name of the cookie of a browser session."""

TOKEN = "admin.token"  # noqa: S105 (the name of a file)
"""Name of the file with the admin's token in the data folder."""

CODE_S = 15 * 60.0
"""How long the code of a login address is valid, in seconds."""

_ADMIN = "admin"
_TOKEN = re.compile(r"tt_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_TOUCH = timedelta(minutes=1)
_MOST_CODES = 100


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        name: Name of the token.
        role: Its role.
        token_id: Its id.
    """

    name: str
    role: Role
    token_id: str

    def may(self, role: Role) -> bool:
        """Whether it may do what needs this role."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def require(self, role: Role) -> None:
        """Check that it may do what needs this role.

        Raises:
            ForbiddenError: it may not.
        """
        if not self.may(role):
            raise ForbiddenError(f"this needs the role {role}; the token {self.name!r} has the role {self.role}")


@dataclass(frozen=True)
class Session:
    """A new browser session.

    Attributes:
        secret: The value of the cookie.
        length_s: How long it is valid, in seconds.
        principal: Who signed in.
    """

    secret: str
    length_s: float
    principal: Principal


class Authentication:
    """Finds who asks.

    Args:
        store: Has the tokens and sessions.
        settings: Has the lengths of sessions.
        clock: The time, UTC.
    """

    def __init__(self, store: Store, settings: ServiceSettings, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._touched: dict[str, datetime] = {}  # by token
        self._used: dict[str, datetime] = {}  # by digest of the session
        self._codes: dict[str, tuple[str, datetime]] = {}  # by digest: the token, and when the code expires

    def new_token(self, spec: TokenSpec) -> NewToken:
        """Make a token. Its secret is in the result alone.

        Raises:
            JobError: it would have expired already.
            ConflictError: another token has this name.
        """
        now = self._clock()
        if spec.expires_at is not None and spec.expires_at <= now:
            raise JobError(f"expires_at: must be in the future, got {spec.expires_at.isoformat()}")
        token = Token(id=token_hex(6), name=spec.name, role=spec.role, created_at=now, expires_at=spec.expires_at)
        secret = token_urlsafe(32)
        self._store.add_token(token, _digest(secret))
        return NewToken(**token.model_dump(), secret=f"tt_{token.id}_{secret}")

    def by_token(self, text: str) -> Principal:
        """Who has this token.

        Raises:
            UnauthenticatedError: it is no valid token.
        """
        parts = _TOKEN.fullmatch(text.strip())
        stored = self._stored(parts["id"]) if parts else None
        # Compared even if there is none, so that the time does not tell which ids exist.
        expected = stored.digest if stored else _digest("")
        if not compare_digest(_digest(parts["secret"] if parts else text), expected) or stored is None:
            raise UnauthenticatedError("the token is not known; it may have been removed")
        return self._principal(stored.token)

    def by_session(self, secret: str) -> Principal:
        """Who has this browser session.

        Raises:
            UnauthenticatedError: it has ended, or its token was removed or has expired.
        """
        digest, now = _digest(secret), self._clock()
        try:
            session = self._store.session(digest)
        except NotFoundError:
            raise UnauthenticatedError("the session has ended; sign in again") from None
        if session.expires_at <= now:
            raise UnauthenticatedError("the session has ended; sign in again")
        with self._lock:
            # After a restart of the service, the session counts as used now.
            idle = now - self._used.get(digest, now)
            if idle.total_seconds() < self._settings.session_idle:
                self._used[digest] = now
        stored = self._stored(session.token_id)
        if idle.total_seconds() >= self._settings.session_idle or stored is None:
            self.sign_out(secret)
            raise UnauthenticatedError("the session has ended; sign in again")
        return self._principal(stored.token)

    def check(self, who: Principal) -> None:
        """Check that a token still exists, and has not expired.

        Raises:
            UnauthenticatedError: it was removed, or has expired.
        """
        stored = self._stored(who.token_id)
        if stored is None:
            raise UnauthenticatedError("the token was removed")
        self._principal(stored.token)

    def new_code(self, token_id: str) -> str:
        """A code to sign in with, once, within `CODE_S`."""
        code, now = token_urlsafe(24), self._clock()
        with self._lock:
            valid = {digest: entry for digest, entry in self._codes.items() if entry[1] > now}
            self._codes = dict(list(valid.items())[-_MOST_CODES + 1 :])
            self._codes[_digest(code)] = (token_id, now + timedelta(seconds=CODE_S))
        return code

    def sign_in(self, *, code: str = "", token: str = "") -> Session:
        """Begin a browser session, by a code or a token.

        Raises:
            UnauthenticatedError: the code was used, or has expired; or the token is not valid.
        """
        now = self._clock()
        if code:
            with self._lock:
                token_id, until = self._codes.pop(_digest(code), ("", now))
            stored = self._stored(token_id) if until > now else None
            if stored is None:
                raise UnauthenticatedError("the code was used or has expired; paste a token instead")
            principal = self._principal(stored.token)
        else:
            principal = self.by_token(token)
        secret, length_s = token_urlsafe(32), self._settings.session_length
        ends = now + timedelta(seconds=length_s)
        self._store.add_session(StoredSession(_digest(secret), principal.token_id, now, ends))
        with self._lock:
            self._used[_digest(secret)] = now
        return Session(secret, length_s, principal)

    def sign_out(self, secret: str) -> None:
        """End a browser session; one that has ended is no error."""
        with self._lock:
            self._used.pop(_digest(secret), None)
        self._store.remove_session(_digest(secret))

    def admin_token(self, folder: Path) -> tuple[str, str]:
        """The admin's token of a data folder, and its id. One that is missing or not known is made anew.

        Raises:
            JobError: the file cannot be written, or others can read it.
        """
        file = folder / TOKEN
        try:
            with suppress(FileNotFoundError):
                text = _read_private(file)
                with suppress(UnauthenticatedError):
                    return text, self.by_token(text).token_id
                file.unlink()
            with suppress(NotFoundError):
                for token in self._store.tokens(limit=10_000).items:
                    if token.name == _ADMIN:
                        self._store.remove_token(token.id)
            new = self.new_token(TokenSpec(name=_ADMIN, role="admin"))
            # O_EXCL follows no link and opens no file of another user.
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as opened:
                opened.write(f"{new.secret}\n")
        except OSError as error:
            raise JobError(f"{file}: {error.strerror}") from None
        return new.secret, new.id

    def _stored(self, token_id: str) -> StoredToken | None:
        try:
            return self._store.token_by_id(token_id)
        except NotFoundError:
            return None

    def _principal(self, token: Token) -> Principal:
        now = self._clock()
        if token.expires_at is not None and token.expires_at <= now:
            raise UnauthenticatedError(f"the token {token.name!r} expired at {token.expires_at.isoformat()}")
        with self._lock:
            last = self._touched.get(token.id)
            is_due = last is None or now - last >= _TOUCH
            if is_due:
                self._touched[token.id] = now
        if is_due:
            self._store.touch_token(token.id, now)
        return Principal(token.name, token.role, token.id)


def _digest(secret: str) -> str:
    return sha256(secret.encode(errors="surrogatepass")).hexdigest()


def _read_private(file: Path) -> str:
    """The token in a file that nobody else can read."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise JobError(f"{file}: other users can read it; remove it, and the service writes a new token")
        return opened.read(200).decode("ascii", errors="replace").strip()
