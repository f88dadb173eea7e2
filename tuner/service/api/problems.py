"""Errors as problem details (RFC 9457), and what a response of the API is made of."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tuner.client.resources import Problem
from tuner.core.errors import UsageError, shortened
from tuner.options.validation_errors import describe
from tuner.service.errors import ConflictError, CursorError, NotFoundError, StoreUnavailableError
from tuner.service.refusals import (
    ForbiddenError,
    LimitError,
    StaleError,
    UnauthenticatedError,
)

MEDIA_TYPE = "application/problem+json"

_AWAY_S = 5
# Characters of a detail: it may repeat what was sent.
_MOST = 1000
# In order: an error is the first that it is an instance of.
_STATUS: Sequence[tuple[type[Exception], HTTPStatus, str]] = (
    (UnauthenticatedError, HTTPStatus.UNAUTHORIZED, "A valid token is needed"),
    (ForbiddenError, HTTPStatus.FORBIDDEN, "Not allowed"),
    (NotFoundError, HTTPStatus.NOT_FOUND, "Not found"),
    (StaleError, HTTPStatus.PRECONDITION_FAILED, "The resource has changed"),
    (ConflictError, HTTPStatus.CONFLICT, "Not possible in this state"),
    (LimitError, HTTPStatus.TOO_MANY_REQUESTS, "Too many at once"),
    (StoreUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer"),
    (CursorError, HTTPStatus.UNPROCESSABLE_ENTITY, "Wrong cursor"),
    (UsageError, HTTPStatus.UNPROCESSABLE_ENTITY, "Wrong request"),
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def problem(
    status: int, title: str, detail: str = "", *, errors: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """A response with problem details."""
    body = Problem(status=status, title=_sayable(title), detail=_sayable(detail), errors=tuple(map(_sayable, errors)))
    return Response(body.model_dump_json(), status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Response:
    """The response to an exception of an operation."""
    for kind, status, title in _STATUS:
        if isinstance(error, kind):
            return problem(status, title, shortened(str(error), _MOST), headers=_headers_of(error))
    if isinstance(error, OSError) and error.errno in _FULL:
        return problem(
            HTTPStatus.INSUFFICIENT_STORAGE, "The disk is full", "the data folder of the service has no space"
        )
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Unexpected error", "see the log of the service")


def add_problems(app: FastAPI) -> None:
    """Make problem details of all errors of an app."""

    async def expected(_: Request, error: Exception) -> Response:
        return problem_of(error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 (by its registration)
        return _invalid(error)

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 (the same)
        status = HTTPStatus(error.status_code)
        detail = "" if error.detail == status.phrase else str(error.detail)
        return problem(status, status.phrase, detail, headers=error.headers)

    for kind, _, _ in _STATUS:
        app.add_exception_handler(kind, expected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(OSError, expected)
    app.add_exception_handler(Exception, expected)


def answer(resource: BaseModel, status: int = HTTPStatus.OK, *, headers: Mapping[str, str] | None = None) -> Response:
    """A resource as JSON; one with a version has it as its ETag."""
    tag = {"ETag": f'"{version}"'} if (version := getattr(resource, "version", None)) else {}
    return Response(
        resource.model_dump_json(), status, headers={**tag, **(headers or {})}, media_type="application/json"
    )


def responses(
    *statuses: int, also: Mapping[int | str, dict[str, Any]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """What a route may answer, for the OpenAPI description.

    Args:
        statuses: Status codes of problems, beside those that every route may answer with.
        also: Other responses.
    """
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    always = (401, 403, 422, 503)
    problems: dict[int | str, dict[str, Any]] = {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*always, *statuses})
    }
    return {**(also or {}), **problems}


def _headers_of(error: Exception) -> dict[str, str]:
    if isinstance(error, UnauthenticatedError):
        return {"WWW-Authenticate": 'Bearer realm="tritontune"'}
    if isinstance(error, LimitError):
        return {"Retry-After": str(error.retry_after_s)}
    return {"Retry-After": str(_AWAY_S)} if isinstance(error, StoreUnavailableError) else {}


def _invalid(error: RequestValidationError) -> Response:
    faults = list(error.errors())
    if any(fault["type"] == "json_invalid" for fault in faults):
        return problem(HTTPStatus.BAD_REQUEST, "Not JSON", "the body is not valid JSON")
    lines = [f"{_place(fault['loc'])}: {shortened(_rule(fault), 300)}" for fault in faults[:50]]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Wrong request", lines[0] if lines else "", errors=lines)


def _place(location: Sequence[Any]) -> str:
    """`priority` of a body; `query limit` and `header if-match` of others."""
    where, *path = location or ("body",)
    name = ".".join(str(part) for part in path)
    return (name or "body") if where == "body" else f"{where} {name}"


def _rule(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return "is not a field of this resource"
    return "is missing" if fault["type"] == "missing" else describe(fault)


def _sayable(text: str) -> str:
    """A text that UTF-8 can express: half surrogates, as in what was sent, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
