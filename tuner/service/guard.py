"""What every request must pass, and what every response has: host, origin, size, headers, and a line in the log."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuner.service.api.problems import problem
from tuner.service.auth import COOKIE
from tuner.service.metrics import Requests

ACCESS = logging.getLogger("tuner.service.access")
"""Has one line for each request, without its query, headers and body."""

_UNSAFE = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    # Not no-referrer: browsers would send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware around the whole app.

    Args:
        app: The app.
        most_bytes: Largest body of a request.
        listen: Host that the service listens at. At a loopback address, requests must name it, localhost or the host of
            `public_url`: a web page whose name leads to this machine (DNS rebinding) is refused.
        public_url: The address that users have; None: the one that the service listens at.
        requests: Counts the requests.
    """

    def __init__(
        self, app: ASGIApp, *, most_bytes: int, listen: str, public_url: str | None, requests: Requests
    ) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._requests = requests
        public = urlsplit(public_url).netloc.rpartition("@")[2].lower() if public_url else ""
        self._public = public
        hosts = {*_LOOPBACK_NAMES, listen.lower(), _host_of(public)}
        self._hosts = hosts - {""} if _is_loopback(listen) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await refusal(scope, receive, send_safely)
            else:
                await self._app(scope, self._limited(receive), send_safely)
        finally:
            self._log(scope, status, time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self._hosts is not None and _host_of(host) not in self._hosts:
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "Unknown host",
                "the Host header names another host than the service; give its address by --public-url",
            )
        if scope["method"] not in _UNSAFE:
            return None
        is_api = scope["path"].startswith("/api/")
        has_session = COOKIE in cookie_parser(headers.get("cookie", ""))
        if (has_session or not is_api) and not self._is_same_site(headers, host):
            return problem(HTTPStatus.FORBIDDEN, "Cross-site request", "the request comes from another site")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > self._most_bytes:
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Too large", self._too_large())
        has_body = length not in {"", "0"} or "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if is_api and has_body and kind != "application/json":
            return problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "Not JSON",
                f"the body must be JSON with Content-Type: application/json, got {kind[:60]!r}",
            )
        return None

    def _is_same_site(self, headers: Headers, host: str) -> bool:
        """Whether a browser says that the request comes from a page of ours. Without a word from it, it does not."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if site not in {None, "same-origin"}:
            return False
        if origin is None:
            return site is not None
        return urlsplit(origin.lower()).netloc in {host, self._public} - {""}

    def _limited(self, receive: Receive) -> Receive:
        left = self._most_bytes

        async def limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._too_large())
            return message

        return limited

    def _too_large(self) -> str:
        return f"the body is larger than {self._most_bytes:,} bytes (`max_body` of the service's config file)"

    def _log(self, scope: Scope, status: int, took_s: float) -> None:
        route: Any = scope.get("route")
        self._requests.count(scope["method"], getattr(route, "path", "other"), status, took_s)
        who = scope.get("state", {}).get("who")
        ACCESS.info(
            "%s %s %d",
            scope["method"],
            scope["path"][:500],
            status,
            extra={
                "method": scope["method"],
                "path": scope["path"][:500],
                "status": status,
                "took_ms": round(1000 * took_s, 1),
                "client": scope["client"][0] if scope.get("client") else None,
                "token": getattr(who, "name", None),
            },
        )


def _host_of(netloc: str) -> str:
    """The host of `host:port` or `[::1]:port`; empty: there is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
