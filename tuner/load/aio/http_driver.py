"""A driver over HTTP: KServe v2 with binary tensors."""

from __future__ import annotations

import os
import ssl
from typing import Final
from urllib.parse import quote

import aiohttp

from tuner.load.aio.caller import Outcome, Reply
from tuner.load.aio.driver import AsyncioDriver
from tuner.load.aio.http_messages import JSON_LENGTH, HttpAnswer, headers_of, in_sequence
from tuner.load.drivers import Answer
from tuner.load.failures import describe
from tuner.load.validation import mismatch
from tuner.load.workload import Plan, Request
from tuner.options.endpoint import Endpoint

# Read buffer of a connection: allows large pieces, and limits the bytes that the server sends ahead.
_BUFFER_BYTES: Final = 1 << 20
# Longer than any pause between loads, so that only the server closes connections.
_KEEP_ALIVE_S: Final = 3600.0
# Headers that aiohttp would add. Because of the last one, Triton would compress answers.
_NOT_SENT: Final = ("user-agent", "accept", "accept-encoding")


class HttpDriver(AsyncioDriver):
    """A `Driver` over HTTP/1.1, with a connection for each request under way.

    Args:
        plan: The requests, and where to send them.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, _HttpCaller, in_sequence)


class _HttpCaller:
    """Sends requests over kept-alive connections, and over a new one if the server has just closed one."""

    def __init__(self, plan: Plan) -> None:
        self._endpoint = plan.endpoint
        self._url = _url(plan)
        self._server_name = plan.endpoint.tls.server_name if plan.endpoint.tls else None
        context = plan.endpoint.tls.context("http/1.1") if plan.endpoint.tls else True
        self._kept = _session(
            plan.endpoint,
            aiohttp.TCPConnector(ssl=context, limit=0, ttl_dns_cache=None, keepalive_timeout=_KEEP_ALIVE_S),
        )
        self._new = _session(
            plan.endpoint, aiohttp.TCPConnector(ssl=context, limit=0, ttl_dns_cache=None, force_close=True)
        )
        if any(request.expected for request in plan.workload.requests):
            # Imported now, as it takes a while.
            from tritonclient.grpc import service_pb2  # noqa: F401, PLC0415

    async def call(self, slot: int, request: Request) -> Outcome:  # noqa: ARG002 (any connection will do)
        try:
            answer = await self._send(request)
        except FAILURES as error:
            return Outcome(explain(self._endpoint, error))
        wrong = answer.error or (_mismatch(answer, request) if request.expected else None)
        return Outcome(wrong, len(answer.body))

    async def ask(self, request: Request) -> Answer:
        try:
            answer = await self._send(request)
        except FAILURES as error:
            return Answer(b"", explain(self._endpoint, error))
        if answer.error:
            return Answer(b"", answer.error)
        try:
            return Answer(answer.as_response())
        except ValueError as error:
            return Answer(b"", describe("DATA_LOSS", str(error)))

    async def ask_whole(self, slot: int, request: Request) -> Reply:  # noqa: ARG002 (any connection will do)
        return Reply.of(await self.ask(request))

    async def close(self) -> None:
        await self._kept.close()
        await self._new.close()

    async def _send(self, request: Request) -> HttpAnswer:
        try:
            response = await self._post(self._kept, request)
        except aiohttp.ClientConnectorError:
            raise
        except aiohttp.ClientConnectionError:
            # The server may close a kept-alive connection while the next request is on its way, which is no failure.
            response = await self._post(self._new, request)
        async with response:
            body = await response.read()
            return HttpAnswer(response.status, response.reason or "", response.headers.get(JSON_LENGTH), body)

    async def _post(self, session: aiohttp.ClientSession, request: Request) -> aiohttp.ClientResponse:
        return await session.post(
            self._url,
            data=request.body,
            headers=headers_of(request),
            server_hostname=self._server_name,
            allow_redirects=False,
        )


def _session(endpoint: Endpoint, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        headers=endpoint.headers,
        skip_auto_headers=_NOT_SENT,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
        read_bufsize=_BUFFER_BYTES,
    )


def _url(plan: Plan) -> str:
    workload = plan.workload
    version = f"/versions/{workload.version}" if workload.version else ""
    return f"{plan.endpoint.url}/v2/models/{quote(workload.model, safe='')}{version}/infer"


def _mismatch(answer: HttpAnswer, request: Request) -> str | None:
    try:
        return mismatch(answer.as_response(), request.expected)
    except ValueError as error:
        return describe("DATA_LOSS", str(error))


FAILURES: Final = (aiohttp.ClientError, OSError)
"""The exceptions that aiohttp raises for failed requests."""


def explain(endpoint: Endpoint, error: Exception) -> str:
    """One of `FAILURES` as `CODE: message`."""
    if isinstance(error, aiohttp.ClientResponseError):
        # The rest of the message quotes bytes.
        return describe("INTERNAL", f"not an HTTP response: {error.message.partition(':')[0]}")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = _reason(error.certificate_error)
        what = f"cannot connect to {endpoint.address}: certificate not trusted: {reason}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        what = f"cannot connect to {endpoint.address}: {_reason(error.os_error)}"
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        what = "the server closed the connection without an answer"
    elif isinstance(error, aiohttp.ClientPayloadError):
        what = "the connection ended in the middle of an answer"
    else:
        what = f"connection lost: {_reason(error.__cause__ or error)}"
    return describe("UNAVAILABLE", what)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else str(error) or "the server closed it"
