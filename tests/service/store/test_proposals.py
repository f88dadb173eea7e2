from __future__ import annotations

import threading

import pytest
from support.stored import T0, proposal

from tuner.client.resources import Proposal
from tuner.service.errors import ConflictError, CursorError, NotFoundError
from tuner.service.store.proposals import ProposalFilter
from tuner.service.store.store import Store


def added(store: Store, **fields: object) -> Proposal:
    return store.add_proposal(proposal(store.next_proposal_id(), **fields))


def test_a_proposal_comes_back(store: Store) -> None:
    given = added(store, target="edge", evidence="1.3 x", model="NUL \0")
    assert store.proposal(1) == given
    with pytest.raises(ConflictError, match="proposal 1 exists"):
        store.add_proposal(given)
    for unknown in (2, 0, 10**30):
        with pytest.raises(NotFoundError, match=f"no proposal {unknown}"):
            store.proposal(unknown)


def test_a_decision_is_recorded_once(store: Store) -> None:
    added(store)
    store.clock = lambda: T0
    decided = store.decide_proposal(1, "approved", by="alice", reason="deployed", if_version=1)
    assert (decided.state, decided.decided_by, decided.decided_at, decided.version) == ("approved", "alice", T0, 2)
    assert store.proposal(1) == decided
    with pytest.raises(ConflictError, match="proposal 1 is approved by alice, not open"):
        store.decide_proposal(1, "rejected", by="bob")


def test_a_decision_needs_the_version_that_was_seen(store: Store) -> None:
    added(store)
    with pytest.raises(ConflictError, match="has version 1, not 2"):
        store.decide_proposal(1, "approved", by="alice", if_version=2)
    assert store.proposal(1).state == "open"


def test_one_of_many_decisions_at_once_wins(store: Store) -> None:
    added(store)
    won: list[str] = []

    def decide(who: str) -> None:
        try:
            store.decide_proposal(1, "approved", by=who)
        except ConflictError:
            return
        won.append(who)

    threads = [threading.Thread(target=decide, args=(f"user{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.proposal(1).decided_by]


def test_proposals_are_listed_and_filtered_the_newest_first(store: Store) -> None:
    added(store, model="mlp", target="edge")
    added(store, model="cnn", job=2)
    added(store, model="mlp", job=3, state="withdrawn")

    def ids(**fields: object) -> list[int]:
        return [each.id for each in store.proposals(ProposalFilter(**fields)).items]  # type: ignore[arg-type]

    assert ids() == [3, 2, 1]
    assert ids(states=["open"]) == [2, 1]
    assert ids(states=["open", "withdrawn"], model="mlp") == [3, 1]
    assert ids(target="edge") == [1]
    assert ids(job=3) == [3]
    assert ids(job=10**30) == ids(job=-1) == ids(model="\0") == []
    first = store.proposals(limit=2)
    added(store)
    second = store.proposals(cursor=first.next, limit=2)
    assert [each.id for each in (*first.items, *second.items)] == [3, 2, 1]
    with pytest.raises(CursorError):
        store.proposals(cursor="x")


def test_a_record_of_a_folder_replaces_the_row(store: Store) -> None:
    record = proposal(7, state="approved", decided_by="alice", version=2)
    store.store_proposal(proposal(7))
    store.store_proposal(record)
    assert store.proposals().items == (record,)
    assert store.next_proposal_id() == 8
