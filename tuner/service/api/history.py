"""The nights of targets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from tuner.client.resources import NightEntry, Page
from tuner.service.api.access import PREFIX, Cursor, Limit, Reader, ServiceOf
from tuner.service.api.problems import answer, responses

router = APIRouter(prefix=f"{PREFIX}/history", tags=["history"])


@router.get("", response_model=Page[NightEntry], responses=responses(404))
def history(
    service: ServiceOf,
    who: Reader,
    *,
    target: Annotated[str | None, Query(max_length=100, description="Only nights of this target.")] = None,
    model: Annotated[str | None, Query(max_length=255, description="Only nights of this model.")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """Nights, the newest first."""
    return answer(service.history(who, target=target, model=model, cursor=cursor, limit=limit))
