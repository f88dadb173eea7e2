"""The pages of proposals, and the decisions on them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, get_args

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from tuner.client.resources import ProposalState
from tuner.report.html.diff_lines import diff_lines
from tuner.service.operations import Service
from tuner.service.pages.errors import PageRoute
from tuner.service.pages.rendering import page
from tuner.service.pages.visitors import Id, visitor

_ON_PAGE = 50

Reason = Annotated[str, Form(max_length=1000)]
Version = Annotated[int, Form()]


class ProposalPages:
    """The pages of proposals.

    Args:
        service: Has the proposals.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> APIRouter:
        """The addresses."""
        routes = APIRouter(route_class=PageRoute, include_in_schema=False)
        routes.get("/proposals")(self.proposals)
        routes.get("/proposals/{proposal_id}")(self.proposal)
        routes.post("/proposals/{proposal_id}/approve")(self.approve)
        routes.post("/proposals/{proposal_id}/reject")(self.reject)
        return routes

    def proposals(
        self,
        request: Request,
        state: Annotated[str, Query(max_length=20)] = "open",
        cursor: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Response:
        """The proposals of a state, the newest first."""
        who = visitor(self._service, request)
        wanted: ProposalState | None = next((each for each in get_args(ProposalState) if each == state), None)
        return page(
            request,
            "proposals",
            who=who,
            page=self._service.proposals(who, state=wanted, cursor=cursor, limit=_ON_PAGE),
            state=wanted or "all",
            address=f"/proposals?state={wanted or 'all'}",
            first=cursor is not None,
        )

    def proposal(self, request: Request, proposal_id: Id) -> Response:
        """A proposal with its diff and evidence."""
        who = visitor(self._service, request)
        proposal = self._service.proposal(who, proposal_id)
        return page(request, "proposal", who=who, proposal=proposal, lines=diff_lines(proposal.diff))

    def approve(self, request: Request, proposal_id: Id, version: Version, reason: Reason = "") -> Response:
        """Approve a proposal, which deploys its files."""
        who = visitor(self._service, request)
        self._service.approve(who, proposal_id, reason.strip(), if_version=version)
        return RedirectResponse(f"/proposals/{proposal_id}", HTTPStatus.SEE_OTHER)

    def reject(self, request: Request, proposal_id: Id, version: Version, reason: Reason = "") -> Response:
        """Reject a proposal."""
        who = visitor(self._service, request)
        self._service.reject(who, proposal_id, reason.strip(), if_version=version)
        return RedirectResponse(f"/proposals/{proposal_id}", HTTPStatus.SEE_OTHER)
