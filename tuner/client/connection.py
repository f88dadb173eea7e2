"""Requests to the service over HTTP: deadlines, retries, and errors in one line."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from pydantic import ValidationError
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError
from urllib3.exceptions import TimeoutError as TimedOutError

from tuner.client.resources import Problem
from tuner.core.errors import (
    JobError,
    NotAllowedError,
    NotThereError,
    RefusedError,
    ServiceAwayError,
    ServiceError,
    StateConflictError,
    TokenRefusedError,
    shortened,
)
from tuner.core.redaction import keep_secret

Verb = Literal["GET", "POST", "PUT", "DELETE"]

CONNECT_S = 10.0
"""Deadline of a connection, in seconds."""

_TRIES, _PAUSE_S, _LONGEST_PAUSE_S = 4, 0.25, 10.0
# Status codes of temporary failures, after which a request is repeated if that does no harm.
_TEMPORARY = frozenset({408, 425, 429, 502, 503, 504})
_KINDS: Mapping[int, type[RefusedError]] = {
    401: TokenRefusedError,
    403: NotAllowedError,
    404: NotThereError,
    409: StateConflictError,
    412: StateConflictError,
}
# The service sends a comment at least every 15 s, so a longer silence is a lost connection.
_SILENCE_S = 60.0
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Response:
    """A successful response.

    Attributes:
        status: Its status code.
        headers: Its headers.
        body: Its whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Connections to one service. Redirects are not followed, so the token goes nowhere else.

    Args:
        server: Its address, such as `https://tuner.example.com`; a path before `/api` may follow.
        token: The token; None: requests carry none.
        ca: CA certificates to trust, as a PEM file; None: those of the system.
        timeout_s: Deadline of a response, in seconds.

    Raises:
        JobError: the address or the file is wrong.
    """

    def __init__(self, server: str, token: str | None, ca: Path | None = None, timeout_s: float = 30.0) -> None:
        self.server = checked_address(server)
        self._timeout = urllib3.Timeout(connect=CONNECT_S, read=timeout_s)
        self._headers = {"accept": "application/json", "user-agent": "tritontune"}
        if token is not None:
            if not token.isascii() or not token.isprintable() or " " in token:
                raise JobError("the token has characters that no token has; copy it again, without quotes and spaces")
            keep_secret("token", token)
            self._headers["authorization"] = f"Bearer {token}"
        self._pool = _pool(self.server, ca)

    def close(self) -> None:
        """End all connections."""
        self._pool.clear()

    def request(
        self,
        verb: Verb,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> Response:
        """Send a request, and again after a temporary failure if that does no harm.

        Args:
            verb: The method.
            path: Path behind the address, such as `/api/v1/jobs`.
            query: Parameters; those that are None are left out.
            body: JSON.
            headers: Further headers.
            repeatable: Whether it may be sent twice. By default all may but POST.

        Raises:
            ServiceError: it failed; the message has what the service said.
        """
        repeatable = verb != "POST" if repeatable is None else repeatable
        for left in reversed(range(_TRIES if repeatable else 1)):
            pause_s = _PAUSE_S * 2 ** (_TRIES - 1 - left)
            try:
                response = self._send(verb, path, query, body, headers or {})
            except ServiceAwayError:
                if not left:
                    raise
            else:
                if response.status < 300:
                    return Response(response.status, response.headers, response.data)
                if not left or response.status not in _TEMPORARY:
                    raise self._refusal(response)
                pause_s = _pause_s(response, pause_s)
            time.sleep(pause_s)
        raise AssertionError  # the last try returns or raises

    def stream(self, path: str, *, query: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[bytes]:
        """The body of a response in parts, as they come; ends with the response.

        Raises:
            ServiceError: the request failed. A broken connection is a `ServiceAwayError`.
        """
        response = self._send("GET", path, query, None, headers, silence_s=_SILENCE_S)
        try:
            if response.status >= 300:
                raise self._refusal(response)
            while chunk := response.read1(_CHUNK):
                yield chunk
        except (HTTPError, OSError) as error:
            raise ServiceAwayError(f"{self.server}: the connection broke: {_reason(error)}") from None
        finally:
            response.close()

    def _send(
        self,
        verb: Verb,
        path: str,
        query: Mapping[str, Any] | None,
        body: str | None,
        headers: Mapping[str, str],
        *,
        silence_s: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{self.server}{path}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        extra = {"content-type": "application/json"} if body is not None else {}
        try:
            return self._pool.request(
                verb,
                url,
                body=body.encode() if body is not None else None,
                headers={**self._headers, **extra, **headers},
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=silence_s) if silence_s else self._timeout,
                preload_content=silence_s is None,
            )
        except SSLError as error:
            raise ServiceError(
                f"{self.server}: no secure connection: {_reason(error)}; name its CA certificates by --tls-ca FILE"
            ) from None
        except (HTTPError, OSError) as error:
            raise ServiceAwayError(
                f"{self.server}: cannot be reached: {_reason(error)}; is `tritontune serve` running there?"
            ) from None

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> ServiceError:
        """The error of a response that is no success."""
        status = response.status
        if status < 400:
            return ServiceError(
                f"{self.server} redirects to {response.headers.get('location', 'nowhere')}; give that address",
                status=status,
            )
        try:
            text = _in_words(Problem.model_validate_json(response.data, extra="ignore"))
        except (ValidationError, HTTPError):
            text = f"{self.server} answers with status {status}; is it the address of `tritontune serve`?"
        if status in _TEMPORARY:
            return ServiceAwayError(text, status=status)
        if status >= 500:
            return ServiceError(text, status=status)
        return _KINDS.get(status, RefusedError)(text, status=status)


def checked_address(server: str) -> str:
    """An address without a slash at its end.

    Raises:
        JobError: it is no address of a service.
    """
    try:
        parts = urlsplit(server)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or not server.isprintable() or " " in server:
        raise JobError(f"--server: {shortened(server, 80)!r} is not an address; write http://HOST:PORT or https://HOST")
    if parts.username is not None:
        raise JobError("--server: an address has no user; set TRITONTUNE_TOKEN to the token")
    return server.rstrip("/")


def _pool(server: str, ca: Path | None) -> urllib3.PoolManager:
    """Connections, through the proxy that the environment names, if any.

    Raises:
        JobError: the CA's file or the proxy's address is wrong.
    """
    settings: dict[str, Any] = {"maxsize": 4}
    if ca is not None:
        if not ca.is_file():
            raise JobError(f"--tls-ca: {ca}: no such file")
        settings |= {"ca_certs": str(ca), "cert_reqs": "CERT_REQUIRED"}
    parts = urlsplit(server)
    host = parts.hostname or ""
    proxy = getproxies().get(parts.scheme)
    if not proxy or host in {"localhost", "127.0.0.1", "::1"} or proxy_bypass(host):
        return urllib3.PoolManager(**settings)
    try:
        return urllib3.ProxyManager(proxy if "://" in proxy else f"http://{proxy}", **settings)
    except (HTTPError, ValueError, AttributeError):
        raise JobError(f"{parts.scheme}_proxy: {proxy!r} is not the address of a proxy") from None


def _pause_s(response: urllib3.BaseHTTPResponse, otherwise_s: float) -> float:
    """Seconds that the service asks to wait for, but not too many."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), _LONGEST_PAUSE_S) if asked.isascii() and asked.isdigit() else otherwise_s


def _in_words(problem: Problem) -> str:
    """What is wrong, in one line."""
    text = problem.detail or problem.title
    errors = [error for error in problem.errors if error not in text]
    return shortened("; ".join([text.rstrip("."), *errors]))


def _reason(error: Exception) -> str:
    """The cause without addresses of objects, which most messages of the library include."""
    if isinstance(error, MaxRetryError) and error.reason:
        error = error.reason
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimedOutError):
        return "no answer in time"
    return shortened(str(error), 120) or type(error).__name__
