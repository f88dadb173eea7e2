"""Errors as pages: what is wrong, and where to go from there."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from tuner.core.errors import TritontuneError, UsageError
from tuner.options.validation_errors import describe
from tuner.service.errors import ConflictError, NotFoundError, StoreUnavailableError
from tuner.service.pages.rendering import page
from tuner.service.refusals import ForbiddenError, LimitError, StaleError, UnauthenticatedError

_HEADINGS: Sequence[tuple[type[Exception], HTTPStatus, str]] = (
    (ForbiddenError, HTTPStatus.FORBIDDEN, "Not allowed"),
    (NotFoundError, HTTPStatus.NOT_FOUND, "Not found"),
    (StaleError, HTTPStatus.CONFLICT, "Changed meanwhile"),
    (ConflictError, HTTPStatus.CONFLICT, "Not possible now"),
    (LimitError, HTTPStatus.TOO_MANY_REQUESTS, "Too many at once"),
    (StoreUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "The database does not answer"),
    (UsageError, HTTPStatus.BAD_REQUEST, "Wrong request"),
)


class PageRoute(APIRoute):
    """A route whose errors are pages. Who is not logged in is sent to the login."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, within one that makes pages of errors."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except UnauthenticatedError:
                return to_login(request)
            except RequestValidationError as error:
                if request.method == "POST" or "query" in {fault["loc"][0] for fault in error.errors()}:
                    fault = error.errors()[0]
                    words = f"{fault['loc'][-1]}: {describe(fault)}"
                    return error_page(request, HTTPStatus.BAD_REQUEST, "Wrong request", words)
                return error_page(request, HTTPStatus.NOT_FOUND, "Not found", "This address has no page.")
            except TritontuneError as error:
                for kind, status, heading in _HEADINGS:
                    if isinstance(error, kind):
                        return error_page(request, status, heading, str(error))
                raise

        return handle


def error_page(request: Request, status: HTTPStatus, heading: str, detail: str) -> Response:
    """A page that tells an error."""
    who = getattr(request.state, "who", None)
    back = request.url.path.rpartition("/")[0] if request.method == "POST" else ""
    ways = [("Try again", request.url.path)] if status == HTTPStatus.SERVICE_UNAVAILABLE else []
    if back:
        ways.append(("Back", back))
    ways.append(("Overview", "/"))
    response = page(
        request, "error", who=who, status=status, heading=heading, detail=f"{detail[:1].upper()}{detail[1:]}", ways=ways
    )
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        response.headers["Retry-After"] = "30"
    return response


def to_login(request: Request) -> Response:
    """To the login, and from there back to the page that was asked for."""
    if request.url.path.endswith("/live"):
        # Its script loads the page again, which leads to the login.
        return error_page(request, HTTPStatus.UNAUTHORIZED, "Logged out", "The session has ended.")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    after = "" if request.method != "GET" or path == "/" else f"?next={quote(path, safe='')}"
    return RedirectResponse(f"/login{after}", HTTPStatus.SEE_OTHER)
