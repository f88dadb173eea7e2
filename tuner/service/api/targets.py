"""Targets: models of a repository, with their SLO, that the service looks after."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from tuner.client.resources import Page, Target, TargetSpec
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

router = APIRouter(prefix=f"{PREFIX}/targets", tags=["targets"])

_EXAMPLES: dict[str, Any] = {
    "nightly": {
        "summary": "A model to look after",
        "value": {
            "job": {"repository": "/models", "model": "mlp", "slo": {"p99": "40ms"}, "budget": "10m"},
            "policy": {"action": "propose", "min_gain": 0.03},
        },
    }
}


@router.get("", response_model=Page[Target], responses=responses())
def targets(service: ServiceOf, who: Reader, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """Targets, by name."""
    return answer(service.targets(who, cursor=cursor, limit=limit))


@router.get("/{name}", response_model=Target, responses=responses(404))
def target(service: ServiceOf, who: Reader, name: Named) -> Response:
    """A target, with its deployed configurations as they were last measured."""
    return answer(service.target(who, name))


@router.put(
    "/{name}",
    response_model=Target,
    responses=responses(400, 409, 412, 413, 415, also={201: {"model": Target, "description": "It was added."}}),
)
def put_target(
    service: ServiceOf,
    who: Submitter,
    name: Named,
    *,
    spec: Annotated[TargetSpec, Body(openapi_examples=_EXAMPLES)],
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Add or replace a target. With `If-Match`, only the version of that ETag is replaced."""
    version = expected_version(if_match, if_none_match)
    stored = service.put_target(who, name, spec, if_version=version)
    return answer(stored, 201 if stored.version == 1 else 200)


@router.delete("/{name}", status_code=204, response_class=Response, responses=responses(404, 409, 412))
def remove_target(service: ServiceOf, who: Submitter, name: Named, if_match: IfMatch = None) -> Response:
    """Remove a target. Its jobs and their results stay."""
    service.remove_target(who, name, if_version=expected_version(if_match))
    return Response(status_code=204)
