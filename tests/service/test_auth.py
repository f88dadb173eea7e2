from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.service_parts import Clock, idle_service

from tuner.client.resources import ROLES, Role, TokenSpec
from tuner.core.errors import JobError
from tuner.service.auth import CODE_S, Authentication, Principal
from tuner.service.operations import Service
from tuner.service.refusals import ForbiddenError, UnauthenticatedError


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(tmp_path: Path, clock: Clock) -> Iterator[Service]:
    with idle_service(tmp_path, clock=clock, session_idle="1h", session_length="24h") as service:
        yield service


@pytest.fixture
def auth(service: Service) -> Authentication:
    return service.auth


def test_a_token_says_who_asks_and_its_secret_is_not_stored(service: Service, auth: Authentication) -> None:
    token = auth.new_token(TokenSpec(name="ci", role="submit"))
    assert auth.by_token(token.secret) == Principal("ci", "submit", token.id)
    assert len(token.secret) == len("tt_") + 12 + 1 + 43
    database = b"".join(file.read_bytes() for file in service.data.glob("service.db*"))
    assert token.secret.rpartition("_")[2].encode() not in database


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:-1] + ("A" if s[-1] != "A" else "B"),
        lambda _: "",
        lambda s: s + "A",
        lambda s: "tt_" + "0" * 12 + s[15:],
        lambda _: "ü" * 60,
        lambda s: "\ud800" + s,
    ],
)
def test_a_wrong_token_is_refused(auth: Authentication, change: object) -> None:
    token = auth.new_token(TokenSpec(name="ci", role="submit"))
    with pytest.raises(UnauthenticatedError, match="not known"):
        auth.by_token(change(token.secret))  # type: ignore[operator]


def test_a_token_expires(auth: Authentication, clock: Clock) -> None:
    token = auth.new_token(TokenSpec(name="ci", role="read", expires_at=clock.now + timedelta(hours=1)))
    auth.by_token(token.secret)
    clock.advance(3600)
    with pytest.raises(UnauthenticatedError, match="'ci' expired at 2026-03-01T13:00"):
        auth.by_token(token.secret)
    with pytest.raises(JobError, match="expires_at: must be in the future"):
        auth.new_token(TokenSpec(name="late", role="read", expires_at=clock.now))


def test_the_last_use_is_written_at_most_once_a_minute(service: Service, auth: Authentication, clock: Clock) -> None:
    token = auth.new_token(TokenSpec(name="ci", role="read"))

    def last_used_after(seconds: float) -> float:
        clock.advance(seconds)
        auth.by_token(token.secret)
        last = service.store.token_by_id(token.id).token.last_used_at
        assert last is not None
        return (clock.now - last).total_seconds()

    assert [last_used_after(seconds) for seconds in (1, 30, 29, 1)] == [0, 30, 59, 0]


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_what_those_before_it_may(role: Role) -> None:
    who = Principal("x", role, "1")
    allowed = ROLES[: ROLES.index(role) + 1]
    assert [other for other in ROLES if who.may(other)] == list(allowed)
    for other in ROLES[len(allowed) :]:
        with pytest.raises(ForbiddenError, match=f"needs the role {other}; the token 'x' has the role {role}"):
            who.require(other)


def test_a_code_signs_in_once_and_not_for_long(auth: Authentication, clock: Clock) -> None:
    token = auth.new_token(TokenSpec(name="ann", role="approve"))
    code = auth.new_code(token.id)
    session = auth.sign_in(code=code)
    assert auth.by_session(session.secret) == session.principal == Principal("ann", "approve", token.id)
    with pytest.raises(UnauthenticatedError, match="was used or has expired"):
        auth.sign_in(code=code)
    late = auth.new_code(token.id)
    clock.advance(CODE_S)
    with pytest.raises(UnauthenticatedError):
        auth.sign_in(code=late)


def test_a_session_ends_when_it_is_idle_too_old_signed_out_or_its_token_removed(
    service: Service, auth: Authentication, clock: Clock
) -> None:
    token = auth.new_token(TokenSpec(name="ann", role="read"))
    idle, old, out, removed = (auth.sign_in(token=token.secret).secret for _ in range(4))
    auth.sign_out(out)
    for _ in range(24):
        clock.advance(3599)
        for secret in (old, removed):
            auth.by_session(secret)
    for secret in (idle, out):
        with pytest.raises(UnauthenticatedError, match="the session has ended; sign in again"):
            auth.by_session(secret)
    service.store.remove_token(token.id)
    with pytest.raises(UnauthenticatedError):
        auth.by_session(removed)


def test_a_session_ends_at_its_length_however_much_it_is_used(auth: Authentication, clock: Clock) -> None:
    session = auth.sign_in(token=auth.new_token(TokenSpec(name="ann", role="read")).secret).secret
    for _ in range(47):
        clock.advance(1800)
        auth.by_session(session)
    clock.advance(1800)
    with pytest.raises(UnauthenticatedError):
        auth.by_session(session)


def test_the_first_start_writes_the_admin_token_for_its_user_only(auth: Authentication, tmp_path: Path) -> None:
    secret, token_id = auth.admin_token(tmp_path)
    file = tmp_path / "admin.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == f"{secret}\n"
    assert auth.by_token(secret) == Principal("admin", "admin", token_id)
    assert auth.admin_token(tmp_path) == (secret, token_id)


@pytest.mark.parametrize("text", ["", "tt_000000000000_" + "A" * 43, "\xff"])
def test_an_admin_token_that_is_not_known_is_made_anew(auth: Authentication, tmp_path: Path, text: str) -> None:
    first, _ = auth.admin_token(tmp_path)
    file = tmp_path / "admin.token"
    file.write_text(text)
    second, _ = auth.admin_token(tmp_path)
    assert second != first
    with pytest.raises(UnauthenticatedError):
        auth.by_token(first)
    assert file.read_text().strip() == second


def test_an_admin_token_that_others_can_read_or_have_placed_is_refused(auth: Authentication, tmp_path: Path) -> None:
    auth.admin_token(tmp_path)
    file = tmp_path / "admin.token"
    file.chmod(0o644)
    with pytest.raises(JobError, match="admin.token: other users can read it; remove it"):
        auth.admin_token(tmp_path)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JobError, match="admin.token: "):
        auth.admin_token(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
