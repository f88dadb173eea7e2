from __future__ import annotations

import pytest
from support.stored import proposal

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
