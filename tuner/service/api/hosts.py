"""Hosts and their slots."""

from __future__ import annotations

from fastapi import APIRouter, Response

from tuner.client.resources import Host, Page
from tuner.service.api.access import PREFIX, Cursor, Limit, Reader, ServiceOf
from tuner.service.api.problems import answer, responses

router = APIRouter(prefix=f"{PREFIX}/hosts", tags=["hosts"])


@router.get("", response_model=Page[Host], responses=responses())
def hosts(service: ServiceOf, who: Reader, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """The machines that run jobs, with their slots, and the jobs that hold them."""
    return answer(service.hosts(who, cursor=cursor, limit=limit))
