"""Who looks at a page."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request

from tuner.service.auth import COOKIE, Principal
from tuner.service.operations import Service
from tuner.service.refusals import UnauthenticatedError
from tuner.service.store.pages import LARGEST_ID

Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
"""The id of a job or a proposal in an address."""


def visitor(service: Service, request: Request) -> Principal:
    """Who is logged in.

    Raises:
        UnauthenticatedError: nobody.
    """
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        raise UnauthenticatedError("log in first")
    who = service.auth.by_session(cookie)
    request.state.who = who
    return who
