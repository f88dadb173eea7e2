"""Proposals: better configurations that wait for a decision."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response

from tuner.client.resources import Decision, Page, Proposal, ProposalState
from tuner.service.api.access import PREFIX, Approver, Cursor, Id, IfMatch, Limit, Reader, ServiceOf, expected_version
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


_NO_REASON = Decision()
Decided = Annotated[Decision, Body(openapi_examples={"reason": {"value": {"reason": "measured on staging, too"}}})]


@router.post("/{proposal_id}:approve", response_model=Proposal, responses=responses(400, 404, 409, 412, 413, 415, 507))
def approve(
    service: ServiceOf, who: Approver, proposal_id: Id, decision: Decided = _NO_REASON, if_match: IfMatch = None
) -> Response:
    """Deploy the files of a proposal, all or none, with a backup of each. Who approved, and when, is recorded."""
    version = expected_version(if_match)
    return answer(service.approve(who, proposal_id, decision.reason, if_version=version))


@router.post("/{proposal_id}:reject", response_model=Proposal, responses=responses(400, 404, 409, 412, 413, 415, 507))
def reject(
    service: ServiceOf, who: Approver, proposal_id: Id, decision: Decided = _NO_REASON, if_match: IfMatch = None
) -> Response:
    """Reject a proposal. Who rejected it, when, and why, is recorded."""
    version = expected_version(if_match)
    return answer(service.reject(who, proposal_id, decision.reason, if_version=version))
