"""Login and logout, and the page of tokens."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from tuner.client.resources import TokenSpec
from tuner.core.errors import UsageError
from tuner.service.auth import COOKIE, Principal, Session
from tuner.service.errors import ConflictError
from tuner.service.operations import Service
from tuner.service.pages.errors import PageRoute
from tuner.service.pages.rendering import page
from tuner.service.pages.shown_once import ShownOnce
from tuner.service.pages.visitors import visitor
from tuner.service.refusals import UnauthenticatedError

_ON_PAGE = 100
_EMPTY = {"name": "", "role": "read", "days": "90"}

Entered = Annotated[str, Form(max_length=200)]
Asked = Annotated[str, Query(max_length=500)]


class TokenPages:
    """The pages of tokens and sessions.

    Args:
        service: Has the tokens.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._shown_once = ShownOnce(service.clock)

    def routes(self) -> APIRouter:
        """The addresses."""
        routes = APIRouter(route_class=PageRoute, include_in_schema=False)
        routes.get("/login")(self.login_form)
        routes.post("/login")(self.login)
        routes.post("/logout")(self.logout)
        routes.get("/tokens")(self.tokens)
        routes.post("/tokens")(self.new)
        routes.post("/tokens/{token_id}/remove")(self.remove)
        return routes

    def login_form(self, request: Request, next: Asked = "/", code: Asked = "") -> Response:  # noqa: A002 (in the address)
        """The form to log in; a login address that the service printed has a code."""
        if code:
            try:
                return _logged_in(request, self._service.auth.sign_in(code=code), next)
            except UnauthenticatedError as error:
                return _login(request, next, str(error))
        return _login(request, next)

    def login(
        self,
        request: Request,
        token: Entered = "",
        next: Annotated[str, Form(max_length=500)] = "/",  # noqa: A002 (the same)
    ) -> Response:
        """Log in by a token."""
        try:
            return _logged_in(request, self._service.auth.sign_in(token=token.strip()), next)
        except UnauthenticatedError as error:
            return _login(request, next, str(error))

    def logout(self, request: Request) -> Response:
        """End the session."""
        if cookie := request.cookies.get(COOKIE):
            self._service.auth.sign_out(cookie)
        response = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE)
        return response

    def tokens(
        self, request: Request, new: Asked = "", cursor: Annotated[str | None, Query(max_length=500)] = None
    ) -> Response:
        """All tokens, and a new one with its secret, once."""
        return self._page(request, visitor(self._service, request), new=new, cursor=cursor)

    def new(self, request: Request, name: Entered = "", role: Entered = "", days: Entered = "") -> Response:
        """Make a token."""
        who = visitor(self._service, request)
        entered = {"name": name, "role": role, "days": days}
        try:
            lasts = timedelta(days=int(days)) if days else None
            spec = TokenSpec.model_validate(
                {"name": name.strip(), "role": role, "expires_at": lasts and self._service.clock() + lasts}
            )
            token = self._service.new_token(who, spec)
        except ValidationError as error:
            problem = error.errors()[0]
            return self._page(request, who, entered, f"{problem['loc'][0]}: {problem['msg']}")
        except (ValueError, OverflowError):
            return self._page(request, who, entered, f"days: {days!r} is not a number of days")
        except (ConflictError, UsageError) as error:
            return self._page(request, who, entered, str(error))
        return RedirectResponse(
            f"/tokens?new={quote(self._shown_once.keep(who.token_id, token))}", HTTPStatus.SEE_OTHER
        )

    def remove(self, request: Request, token_id: str) -> Response:
        """Remove a token."""
        self._service.remove_token(visitor(self._service, request), token_id)
        return RedirectResponse("/tokens", HTTPStatus.SEE_OTHER)

    def _page(
        self,
        request: Request,
        who: Principal,
        entered: dict[str, str] = _EMPTY,
        problem: str = "",
        *,
        new: str = "",
        cursor: str | None = None,
    ) -> Response:
        return page(
            request,
            "tokens",
            who=who,
            status=HTTPStatus.BAD_REQUEST if problem else HTTPStatus.OK,
            page=self._service.tokens(who, cursor=cursor, limit=_ON_PAGE),
            first=cursor is not None,
            fresh=self._shown_once.take(who.token_id, new) if new else None,
            entered=entered,
            problem=problem,
            now=self._service.clock(),
        )


def _login(request: Request, after: str, problem: str = "") -> Response:
    status = HTTPStatus.UNAUTHORIZED if problem else HTTPStatus.OK
    sentence = f"{problem[:1].upper()}{problem[1:]}." if problem else ""
    return page(request, "login", status=status, next=_local(after), problem=sentence)


def _logged_in(request: Request, session: Session, after: str) -> Response:
    response = RedirectResponse(_local(after), HTTPStatus.SEE_OTHER)
    response.set_cookie(
        COOKIE,
        session.secret,
        max_age=int(session.length_s),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _local(address: str) -> str:
    """An address of this site; the overview for all others."""
    is_local = (
        address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    )
    return address if is_local else "/"
