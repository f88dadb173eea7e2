"""Calls to a Triton over HTTP."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import responses
from typing import Any, TypeVar
from urllib.parse import quote

import urllib3
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from tuner.core.errors import Cause, ServerError
from tuner.options.endpoint import Endpoint
from tuner.servers.diagnosis import explain_failure, hung, misdirected
from tuner.servers.http_answers import own_words

# How web servers answer a request without TLS.
_WANTS_TLS = re.compile(rb"to (an )?https", re.IGNORECASE)

_Message = TypeVar("_Message", bound=Message)


@dataclass(frozen=True)
class _Reply:
    path: str
    status: int
    reason: str
    location: str
    body: bytes


class HttpConnection:
    """A `ServerConnection` over HTTP. Proxies of the environment are ignored."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._headers = urllib3.HTTPHeaderDict()
        for name, value in endpoint.headers:
            self._headers.add(name, value)
        self._pool = _pool(endpoint)

    def server_metadata(self) -> service_pb2.ServerMetadataResponse:
        """See `ServerConnection`."""
        reply = self._ask("GET", "/v2")
        metadata = self._read(reply, service_pb2.ServerMetadataResponse())
        if not metadata.name:
            raise self._strange(reply)
        return metadata

    def repository_index(self) -> service_pb2.RepositoryIndexResponse:
        """See `ServerConnection`."""
        reply = self._ask("POST", "/v2/repository/index")
        return self._read(reply, service_pb2.RepositoryIndexResponse(), within="models")

    def model_ready(self, name: str, version: str) -> service_pb2.ModelReadyResponse:
        """See `ServerConnection`."""
        reply = self._ask("GET", f"{_path(name, version)}/ready")
        if reply.status not in (200, 400):
            raise self._refusal(reply)
        return service_pb2.ModelReadyResponse(ready=reply.status == 200)

    def model_config(self, name: str, version: str) -> service_pb2.ModelConfigResponse:
        """See `ServerConnection`."""
        reply = self._ask("GET", f"{_path(name, version)}/config")
        return self._read(reply, service_pb2.ModelConfigResponse(), within="config")

    def statistics(self, name: str, version: str) -> service_pb2.ModelStatisticsResponse:
        """See `ServerConnection`."""
        reply = self._ask("GET", f"{_path(name, version)}/stats")
        return self._read(reply, service_pb2.ModelStatisticsResponse())

    def load_model(self, name: str, config: str | None) -> None:
        """See `ServerConnection`."""
        self._control(name, "load", {"parameters": {"config": config}} if config is not None else {})

    def unload_model(self, name: str) -> None:
        """See `ServerConnection`."""
        self._control(name, "unload", {})

    def close(self) -> None:
        """See `ServerConnection`."""
        self._pool.close()

    def _control(self, name: str, what: str, content: dict[str, Any]) -> None:
        reply = self._ask("POST", f"/v2/repository/models/{quote(name, safe='')}/{what}", json.dumps(content).encode())
        if reply.status != 200:
            raise self._refusal(reply)

    def _ask(self, verb: str, path: str, content: bytes | None = None) -> _Reply:
        deadline = time.monotonic() + self._timeout_s
        try:
            response = self._pool.request(
                verb,
                f"{self._endpoint.path}{path}",
                body=content,
                headers=self._headers,
                timeout=urllib3.Timeout(total=self._timeout_s),
                retries=False,
                preload_content=False,
            )
            with closing(response):
                body = bytearray()
                # urllib3's time-out is for each piece, and a server may send many.
                while piece := response.read1():
                    body += piece
                    if time.monotonic() > deadline:
                        raise hung(self._endpoint, self._timeout_s)
                if response.length_remaining:
                    raise explain_failure(self._endpoint)
        except urllib3.exceptions.NewConnectionError as error:
            raise explain_failure(self._endpoint) from error
        except urllib3.exceptions.TimeoutError as error:
            raise hung(self._endpoint, self._timeout_s) from error
        except urllib3.exceptions.HTTPError as error:
            raise explain_failure(self._endpoint) from error
        location = response.headers.get("location", "")
        return _Reply(path, response.status, response.reason or "", location, bytes(body))

    def _read(self, reply: _Reply, message: _Message, *, within: str | None = None) -> _Message:
        """The reply as the protobuf message of the gRPC call, or as one field (`within`) of it."""
        if reply.status != 200:
            raise self._refusal(reply)
        try:
            content: Any = json.loads(reply.body)
            return ParseDict({within: content} if within else content, message, ignore_unknown_fields=True)
        except (ValueError, RecursionError, ParseError) as error:
            raise self._strange(reply) from error

    def _refusal(self, reply: _Reply) -> ServerError:
        words = own_words(reply.body)
        # Another web server may answer `Not Found` in the same form.
        if words and words.casefold() not in {reply.reason.casefold(), responses.get(reply.status, "").casefold()}:
            return ServerError(words, cause=Cause.REQUESTS_FAILED)
        if reply.status == 400 and _WANTS_TLS.search(reply.body):
            return misdirected(self._endpoint, "https")
        return self._strange(reply)

    def _strange(self, reply: _Reply) -> ServerError:
        what = f"{reply.status} {reply.reason}" + (f", see {reply.location}" if reply.location else "")
        address = self._endpoint.address
        path = f"{self._endpoint.path}{reply.path}"
        return ServerError(f"{address} is not a Triton: it answers {path} with {what}", cause=Cause.REQUESTS_FAILED)


def _pool(endpoint: Endpoint) -> urllib3.HTTPConnectionPool:
    if endpoint.tls is None:
        return urllib3.HTTPConnectionPool(endpoint.host, endpoint.port)
    context = endpoint.tls.context("http/1.1")
    return urllib3.HTTPSConnectionPool(
        endpoint.host, endpoint.port, ssl_context=context, server_hostname=endpoint.tls.server_name
    )


def _path(model: str, version: str) -> str:
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{version}" if version else "")
