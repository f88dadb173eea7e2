"""What routes receive: who asks, and the service."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from tuner.client.resources import Name, Role
from tuner.core.errors import JobError
from tuner.service.auth import COOKIE, Principal
from tuner.service.operations import Service
from tuner.service.refusals import StaleError, UnauthenticatedError
from tuner.service.store.pages import LARGEST_ID, MOST

PREFIX = "/api/v1"
"""Where the REST API begins."""

_BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="A token: `Authorization: Bearer tt_...`.")
_COOKIE = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="session", description="The session of a browser.")
_TAG = re.compile(r'(?:W/)?"?(\d{1,9})"?', re.ASCII)


async def service_of(request: Request) -> Service:
    """The service of the app."""
    service: Service = request.app.state.service
    return service


def needs(role: Role) -> Callable[..., Principal]:
    """A dependency: who asks, if it has this role. Its attribute `role` tells the role."""

    def principal(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        cookie: Annotated[str | None, Security(_COOKIE)],
    ) -> Principal:
        auth = request.app.state.service.auth
        if bearer is not None:
            who: Principal = auth.by_token(bearer.credentials)
        elif cookie:
            who = auth.by_session(cookie)
        else:
            raise UnauthenticatedError("send a token: Authorization: Bearer tt_...")
        request.state.who = who
        who.require(role)
        return who

    principal.role = role  # type: ignore[attr-defined]  # tests find the role of each route by it
    return principal


ServiceOf = Annotated[Service, Depends(service_of)]
Reader = Annotated[Principal, Depends(needs("read"))]
Submitter = Annotated[Principal, Depends(needs("submit"))]
Approver = Annotated[Principal, Depends(needs("approve"))]
Admin = Annotated[Principal, Depends(needs("admin"))]

Id = Annotated[int, Path(ge=1, le=LARGEST_ID, description="Its number.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="Most items on the page.")]
Named = Annotated[Name, Path(description="Its name.")]
IfMatch = Annotated[
    str | None, Header(max_length=100, description='The ETag that the resource must have, such as `"3"`.')
]
IfNoneMatch = Annotated[str | None, Header(max_length=100, description="`*`: only if there is none yet.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same key and body of the same token give the same job; another body gives 409.",
    ),
]


def expected_version(if_match: str | None, if_none_match: str | None = None) -> int | None:
    """The version that a resource must have; 0: there must be none; None: any.

    Raises:
        StaleError: `If-Match` is no version of this service.
        JobError: `If-None-Match` is not `*`.
    """
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise JobError("If-None-Match: must be *")
        return 0
    if if_match is None or if_match.strip() == "*":
        return None
    found = _TAG.fullmatch(if_match.strip())
    if not found:
        raise StaleError("If-Match: is no ETag of this service; read the resource, and send its ETag")
    return int(found[1])
