"""Proposals in the database."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from tuner.client.resources import Page, Proposal, ProposalState
from tuner.service.documents import parsed
from tuner.service.errors import ConflictError, NotFoundError
from tuner.service.store.counters import next_number, raise_counter
from tuner.service.store.database import Database
from tuner.service.store.pages import LARGEST_ID, checked_limit, number_of, page_of
from tuner.service.store.tables import PROPOSALS

_COUNTER = "proposals"


@dataclass(frozen=True)
class ProposalFilter:
    """Which proposals are listed. Empty and None: all.

    Attributes:
        states: Their states.
        target: Their target.
        model: Their model.
        job: The job that found them.
    """

    states: Collection[ProposalState] = ()
    target: str | None = None
    model: str | None = None
    job: int | None = None


class Proposals(Database):
    """The proposals. All methods raise StoreUnavailableError when the database does not answer."""

    def next_proposal_id(self) -> int:
        """A new id. It is not given out again."""
        with self.writing() as connection:
            return next_number(connection, _COUNTER)

    def add_proposal(self, proposal: Proposal) -> Proposal:
        """Add a proposal, with an id of `next_proposal_id`.

        Raises:
            ConflictError: a proposal has this id.
        """
        try:
            with self.writing() as connection:
                insert_proposal(connection, proposal)
        except IntegrityError:
            raise ConflictError(f"proposal {proposal.id} exists") from None
        return proposal

    def proposal(self, proposal_id: int) -> Proposal:
        """A proposal.

        Raises:
            NotFoundError: there is no such proposal.
        """
        with self.reading() as connection:
            return _found(connection, proposal_id)

    def proposals(
        self, wanted: ProposalFilter = ProposalFilter(), *, cursor: str | None = None, limit: int = 50
    ) -> Page[Proposal]:
        """A page of proposals, the newest first; other arguments and errors as for `jobs`."""
        before = number_of(cursor, "proposals")
        limit = checked_limit(limit)
        columns = PROPOSALS.c
        query = sql.select(columns.document).order_by(columns.id.desc()).limit(limit + 1)
        if wanted.states:
            query = query.where(columns.state.in_(wanted.states))
        for column, value in ((columns.target, wanted.target), (columns.model, wanted.model)):
            if value is not None:
                query = query.where(column == value.replace("\0", " "))
        if wanted.job is not None:
            # No job has a larger id, and the column could not be compared with it.
            query = query.where(columns.job_id == min(max(wanted.job, 0), LARGEST_ID))
        if before is not None:
            query = query.where(columns.id < before)
        with self.reading() as connection:
            items = [parsed(Proposal, document) for document in connection.execute(query).scalars()]
        return page_of(items, limit, "proposals", lambda proposal: proposal.id)

    def proposal_ids(self) -> set[int]:
        """The ids of all proposals."""
        with self.reading() as connection:
            return set(connection.execute(sql.select(PROPOSALS.c.id)).scalars())

    def store_proposal(self, proposal: Proposal) -> None:
        """Make the row equal to a record in a job's folder."""
        values = proposal_columns(proposal)
        with self.writing() as connection:
            if not connection.execute(PROPOSALS.update().where(PROPOSALS.c.id == proposal.id).values(values)).rowcount:
                insert_proposal(connection, proposal)


def check_open(proposal: Proposal, if_version: int | None) -> None:
    """Check that a proposal can be decided on.

    Raises:
        ConflictError: it has another version, or is not open.
    """
    if proposal.state != "open":
        by = f" by {proposal.decided_by}" if proposal.decided_by else ""
        raise ConflictError(f"proposal {proposal.id} is {proposal.state}{by}, not open")
    if if_version is not None and if_version != proposal.version:
        raise ConflictError(f"proposal {proposal.id} has version {proposal.version}, not {if_version}")


def insert_proposal(connection: sql.Connection, proposal: Proposal) -> None:
    """Add the row of a proposal, within a transaction that writes."""
    raise_counter(connection, _COUNTER, proposal.id)
    connection.execute(PROPOSALS.insert().values(id=proposal.id, **proposal_columns(proposal)))


def proposal_columns(proposal: Proposal) -> dict[str, Any]:
    """The columns of a proposal's row beside its id."""
    return {
        "state": proposal.state,
        "job_id": proposal.job,
        "target": proposal.target,
        "model": proposal.model.replace("\0", " "),
        "version": proposal.version,
        "document": proposal.model_dump_json(),
    }


def _found(connection: sql.Connection, proposal_id: int, *, lock: bool = False) -> Proposal:
    query = sql.select(PROPOSALS.c.document).where(PROPOSALS.c.id == proposal_id)
    if lock:
        query = query.with_for_update()
    document = connection.execute(query).scalar_one_or_none() if 0 < proposal_id <= LARGEST_ID else None
    if document is None:
        raise NotFoundError("proposal", proposal_id)
    return parsed(Proposal, document)
