"""Schedules: when jobs are submitted by themselves."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from tuner.client.resources import Page, Schedule, ScheduleSpec
from tuner.service.api.access import (
    PREFIX,
    Cursor,
    IfMatch,
    IfNoneMatch,
    Limit,
    Named,
    Reader,
    ServiceOf,
    Submitter,
    expected_version,
)
from tuner.service.api.problems import answer, responses

router = APIRouter(prefix=f"{PREFIX}/schedules", tags=["schedules"])

_EXAMPLES: dict[str, Any] = {
    "nightly": {
        "summary": "Every night at 2 o'clock",
        "value": {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "target": "recommender", "window": "4h"},
    }
}


@router.get("", response_model=Page[Schedule], responses=responses())
def schedules(service: ServiceOf, who: Reader, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """Schedules, by name."""
    return answer(service.schedules(who, cursor=cursor, limit=limit))


@router.get("/{name}", response_model=Schedule, responses=responses(404))
def schedule(service: ServiceOf, who: Reader, name: Named) -> Response:
    """A schedule, with its next start."""
    return answer(service.schedule(who, name))


@router.put(
    "/{name}",
    response_model=Schedule,
    responses=responses(400, 404, 409, 412, 413, 415, also={201: {"model": Schedule, "description": "It was added."}}),
)
def put_schedule(
    service: ServiceOf,
    who: Submitter,
    name: Named,
    *,
    spec: Annotated[ScheduleSpec, Body(openapi_examples=_EXAMPLES)],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Add or replace a schedule. With `If-Match`, only the version of that ETag is replaced."""
    version = expected_version(if_match, if_none_match)
    stored = service.put_schedule(who, name, spec, if_version=version)
    return answer(stored, 201 if stored.version == 1 else 200)


@router.delete("/{name}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def remove_schedule(service: ServiceOf, who: Submitter, name: Named, if_match: IfMatch = None) -> Response:
    """Remove a schedule. Its jobs stay."""
    service.remove_schedule(who, name, if_version=expected_version(if_match))
    return Response(status_code=204)
