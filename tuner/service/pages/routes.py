"""The dashboard: all pages by address, and the files that they need."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response

from tuner.service.errors import NotFoundError
from tuner.service.operations import Service
from tuner.service.pages.edit_routes import EditPages
from tuner.service.pages.errors import PageRoute
from tuner.service.pages.job_routes import JobPages
from tuner.service.pages.proposal_routes import ProposalPages
from tuner.service.pages.rendering import static_file
from tuner.service.pages.target_routes import TargetPages
from tuner.service.pages.token_routes import TokenPages


def router(service: Service) -> APIRouter:
    """All pages. They are to be the last routes of the app: the last one answers every other address.

    Args:
        service: What the pages show, and what their forms change.
    """
    routes = APIRouter(route_class=PageRoute, include_in_schema=False)
    kinds = (TargetPages, EditPages, JobPages, ProposalPages, TokenPages)
    for pages in (kind(service) for kind in kinds):
        routes.include_router(pages.routes())
    routes.get("/static/{name}")(_static)
    routes.get("/favicon.ico")(_icon)
    routes.get("/{path:path}")(_nothing)
    return routes


def _static(name: str, v: Annotated[str, Query(max_length=100)] = "") -> Response:
    found = static_file(name, v)
    if found is None:
        raise NotFoundError("file", name)
    return found


def _icon() -> Response:
    """For pages that name no icon: a report, JSON."""
    return _static("icon.svg")


def _nothing(path: str) -> Response:
    if path.startswith("api/"):
        raise HTTPException(HTTPStatus.NOT_FOUND)  # with problem details, as all errors of the API
    raise NotFoundError("page", f"/{path}")
