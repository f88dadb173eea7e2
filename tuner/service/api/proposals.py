"""Proposals: better configurations that wait for a decision."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from tuner.client.resources import Page, Proposal, ProposalState
from tuner.service.api.access import PREFIX, Cursor, Id, Limit, Reader, ServiceOf
from tuner.service.api.problems import answer, responses
from tuner.service.store.pages import LARGEST_ID

router = APIRouter(prefix=f"{PREFIX}/proposals", tags=["proposals"])


@router.get("", response_model=Page[Proposal], responses=responses())
def proposals(
    service: ServiceOf,
    who: Reader,
    *,
    state: Annotated[ProposalState | None, Query(description="Only proposals in this state.")] = None,
    target: Annotated[str | None, Query(max_length=100, description="Only proposals of this target.")] = None,
    job: Annotated[int | None, Query(ge=1, le=LARGEST_ID, description="Only proposals of this job.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """Proposals, the newest first."""
    return answer(service.proposals(who, state=state, target=target, job=job, cursor=cursor, limit=limit))


@router.get("/{proposal_id}", response_model=Proposal, responses=responses(404))
def proposal(service: ServiceOf, who: Reader, proposal_id: Id) -> Response:
    """A proposal, with its diff and its evidence."""
    return answer(service.proposal(who, proposal_id))
