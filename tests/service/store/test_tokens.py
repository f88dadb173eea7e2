from __future__ import annotations

from datetime import timedelta

import pytest
from support.stored import T0, token

from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.store.store import Store
from tuner.service.store.tokens import Session, StoredToken

DIGEST = "d" * 64
HOUR = timedelta(hours=1)


def test_a_token_comes_back_with_its_digest(store: Store) -> None:
    given = token("ci", role="admin", expires_at=T0 + HOUR)
    store.add_token(given, DIGEST)
    assert store.token_by_id("id-ci") == StoredToken(given, DIGEST)
    store.touch_token("id-ci", T0 + HOUR)
    assert store.token_by_id("id-ci").token.last_used_at == T0 + HOUR


@pytest.mark.parametrize("unknown", ["", "id-x", "\0", "x" * 1000])
def test_an_unknown_token_is_said(store: Store, unknown: str) -> None:
    store.add_token(token(), DIGEST)
    store.touch_token(unknown, T0)
    for use in (store.token_by_id, store.remove_token):
        with pytest.raises(NotFoundError, match="no token"):
            use(unknown)


def test_two_tokens_never_have_one_name(store: Store) -> None:
    store.add_token(token("ci"), DIGEST)
    with pytest.raises(ConflictError, match="token 'ci' exists"):
        store.add_token(token("ci", id="another"), DIGEST)
    store.remove_token("id-ci")
    store.add_token(token("ci", id="another"), DIGEST)


def test_tokens_are_listed_by_name_in_pages(store: Store) -> None:
    names = ["B", "a", "c", "d.1", "d_1"]
    for name in names:
        store.add_token(token(name), DIGEST)
    found, cursor = [], None
    for _ in range(3):
        page = store.tokens(cursor=cursor, limit=2)
        found += [each.name for each in page.items]
        cursor = page.next
    assert sorted(found) == sorted(names)
    assert cursor is None


def test_a_session_ends_with_its_token(store: Store) -> None:
    store.add_token(token("ci"), DIGEST)
    session = Session("c" * 64, "id-ci", T0, T0 + HOUR)
    store.add_session(session)
    assert store.session("c" * 64) == session
    store.remove_token("id-ci")
    with pytest.raises(NotFoundError, match="no session"):
        store.session("c" * 64)


def test_sessions_are_removed(store: Store) -> None:
    store.add_token(token("ci"), DIGEST)
    store.add_session(Session("a" * 64, "id-ci", T0, T0 + HOUR))
    store.add_session(Session("b" * 64, "id-ci", T0 + HOUR, T0 + 2 * HOUR))
    with pytest.raises(NotFoundError):
        store.session("a" * 64)
    store.remove_session("b" * 64)
    store.remove_session("b" * 64)
    with pytest.raises(NotFoundError):
        store.session("b" * 64)


def test_a_session_needs_its_token(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no token 'gone'"):
        store.add_session(Session("a" * 64, "gone", T0, T0 + HOUR))
