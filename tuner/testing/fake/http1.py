"""Serves HTTP/1.1: one request of a connection after another, and Triton's endpoints in JSON."""

from __future__ import annotations

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

from tritonclient.grpc import service_pb2 as pb

from tuner.testing.fake.api import NO_CUDA_MEMORY, Api, config_json
from tuner.testing.fake.configs import as_json
from tuner.testing.fake.messages import BYTES, FORMATS, Code, InferResponse, RefusedError, joined, texts_of

_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.ALREADY_EXISTS: 409,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
}
_WORDS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}
_HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class HttpReply:
    """An HTTP response."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpRequest:
    """An HTTP request; header names are in lower case."""

    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Handler = Callable[[HttpRequest], Awaitable[HttpReply]]


class HttpServerConnection(asyncio.Protocol):
    """One connection of a client.

    Args:
        handler: Handles the requests.
        others: The server's open connections, which this one joins.
    """

    def __init__(self, handler: Handler, others: set[HttpServerConnection]) -> None:
        self._handler = handler
        self._others = others
        self._transport: asyncio.WriteTransport | None = None
        self._in = bytearray()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._others.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """See `asyncio.Protocol`."""
        self._transport = None
        self._others.discard(self)
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._in += data
        if self._in[:1].isalpha():
            if self._task is None:
                self._next()
        else:
            # Most likely a TLS handshake.
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._transport:
            self._transport.close()

    def _next(self) -> None:
        head, separator, rest = bytes(self._in).partition(b"\r\n\r\n")
        if not separator:
            return
        try:
            first, *lines = head.decode("latin-1").split("\r\n")
            verb, target, _ = first.split(" ")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            length = int(headers.get("content-length", "0"))
        except ValueError:
            self._send(HttpReply(400, b"", "text/plain"), close=True)
            return
        if len(rest) < length:
            return
        del self._in[: len(head) + 4 + length]
        asked = HttpRequest(verb, target.partition("?")[0], headers, rest[:length])
        self._task = asyncio.get_running_loop().create_task(self._answer(asked))

    async def _answer(self, asked: HttpRequest) -> None:
        try:
            reply = await self._handler(asked)
        except RefusedError as error:
            reply = HttpReply(_STATUS.get(error.code, 500), _error(error.text))
        self._task = None
        self._send(reply, close=asked.headers.get("connection", "").lower() == "close")
        if self._transport and self._in:
            self._next()

    def _send(self, reply: HttpReply, *, close: bool) -> None:
        if self._transport is None:
            return
        headers = {"Content-Type": reply.content_type, **reply.headers, "Content-Length": str(len(reply.body))}
        if close:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {reply.status} {_WORDS.get(reply.status, 'Error')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body)
        if close:
            self.close()


def _error(text: str) -> bytes:
    return _json({"error": text})


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


class HttpService:
    """Handles HTTP requests.

    Args:
        api: The server's API.
        restricted: By group of endpoints, the header (in lower case) and the value that it requires.
    """

    def __init__(self, api: Api, restricted: Mapping[str, tuple[str, str]]) -> None:
        self._api = api
        self._restricted = restricted

    async def __call__(self, asked: HttpRequest) -> HttpReply:  # noqa: PLR0911 (one for each endpoint)
        """Handle a request."""
        parts = [unquote(part) for part in asked.path.strip("/").split("/")]
        if parts[0] != "v2":
            return _not_found()
        self._guard(parts[1:], asked)
        if len(parts) == 1:
            return HttpReply(body=_json(as_json(self._api.metadata())))
        if parts[1] == "health":
            return _readiness(parts[-1] == "live" or self._api.ready())
        if parts[1] == "models" and len(parts) > 2:
            return await self._model(parts[2:], asked)
        if parts[1] == "repository":
            return await self._repository(parts[2:], asked)
        if parts[1] == "systemsharedmemory":
            return self._memory(parts[2:], asked)
        if parts[1] == "cudasharedmemory":
            return _cuda(parts[2:])
        return _not_found()

    def _guard(self, parts: list[str], asked: HttpRequest) -> None:
        if restriction := self._restricted.get(_group(parts)):
            name, value = restriction
            if asked.headers.get(name) != value:
                text = f"This API is restricted, expecting header '{name}'"
                raise RefusedError(Code.PERMISSION_DENIED, text)

    async def _model(self, parts: list[str], asked: HttpRequest) -> HttpReply:
        name, version, rest = parts[0], "", parts[1:]
        if len(rest) > 1 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        what = rest[0] if rest else ""
        if what == "":
            return HttpReply(body=_json(as_json(self._api.model_metadata(name, version))))
        if what == "ready":
            return _readiness(self._api.model_ready(name, version), "Model version not ready")
        if what == "config":
            return HttpReply(body=_json(config_json(self._api.config(name, version))))
        if what == "stats":
            return HttpReply(body=_json(as_json(self._api.statistics(name, version))))
        if what == "infer" and asked.verb == "POST":
            return await self._infer(name, version, asked)
        return _not_found()

    async def _repository(self, parts: list[str], asked: HttpRequest) -> HttpReply:
        if parts == ["index"]:
            rows = [{key: value for key, value in as_json(row).items() if value} for row in self._api.index().models]
            return HttpReply(body=_json(rows))
        if len(parts) == 3 and parts[0] == "models" and parts[2] in ("load", "unload"):
            parameters = json.loads(asked.body or b"{}").get("parameters", {})
            if parts[2] == "unload":
                self._api.unload(parts[1], _parameters(parameters))
            else:
                await self._api.load(parts[1], _parameters(parameters))
            return HttpReply()
        return _not_found()

    def _memory(self, parts: list[str], asked: HttpRequest) -> HttpReply:
        name = ""
        if len(parts) == 3 and parts[0] == "region":
            name, parts = parts[1], parts[2:]
        if parts == ["status"]:
            regions = self._api.memory_status(name).regions
            return HttpReply(body=_json([as_json(regions[key]) for key in sorted(regions)]))
        if parts == ["register"]:
            content = json.loads(asked.body)
            self._api.register(name, content["key"], content.get("offset", 0), content["byte_size"])
            return HttpReply()
        if parts == ["unregister"]:
            self._api.unregister(name)
            return HttpReply()
        return _not_found()

    async def _infer(self, name: str, version: str, asked: HttpRequest) -> HttpReply:
        if self._api.is_decoupled(name, version):
            text = "HTTP end point doesn't support models with decoupled transaction policy"
            raise RefusedError(Code.UNIMPLEMENTED, text)
        message, binary = read_inference(name, version, asked)
        answer: asyncio.Future[tuple[pb.ModelInferResponse, InferResponse]] = asyncio.get_running_loop().create_future()

        def take(made: pb.ModelInferResponse, response: InferResponse) -> None:
            if not answer.done():
                answer.set_result((made, response))

        request = self._api.infer(message, take)
        try:
            made, response = await answer
        except asyncio.CancelledError:
            request.cancel()
            raise
        if response.error:
            raise response.error
        return write_inference(made, binary)


def _group(parts: list[str]) -> str:
    last = parts[-1] if parts else ""
    if parts[:1] == ["health"] or last == "ready":
        return "health"
    if parts[:1] == ["repository"]:
        return "model-repository"
    if parts[:1] == ["systemsharedmemory"]:
        return "shared-memory"
    return {"infer": "inference", "config": "model-config", "stats": "statistics"}.get(last, "metadata")


def _cuda(parts: list[str]) -> HttpReply:
    """CUDA shared memory endpoints, on a server without a GPU."""
    if parts[-1:] == ["status"]:
        return HttpReply(body=b"[]")
    if parts[-1:] == ["unregister"]:
        return HttpReply()
    raise RefusedError(Code.INVALID_ARGUMENT, NO_CUDA_MEMORY.format(parts[1] if len(parts) > 1 else ""))


def _not_found() -> HttpReply:
    return HttpReply(404, _error("Not Found"), "text/plain")


def _readiness(ready: bool, words: str = "") -> HttpReply:  # noqa: FBT001 (its only meaning)
    return (
        HttpReply(content_type="text/plain") if ready else HttpReply(400, _error(words) if words else b"", "text/plain")
    )


def _parameters(values: Mapping[str, Any]) -> Any:
    message = pb.RepositoryModelLoadRequest()
    for key, value in values.items():
        if isinstance(value, bool):
            message.parameters[key].bool_param = value
        elif key.startswith("file:"):
            import base64  # noqa: PLC0415 (most servers never need it)

            message.parameters[key].bytes_param = base64.b64decode(value)
        else:
            message.parameters[key].string_param = str(value)
    return message.parameters


def read_inference(name: str, version: str, asked: HttpRequest) -> tuple[pb.ModelInferRequest, Callable[[str], bool]]:
    """The gRPC form of an HTTP inference request, and a function that tells which outputs are sent as binary data.

    Raises:
        RefusedError: the body is not a valid request.
    """
    body = asked.body
    encoding = asked.headers.get("content-encoding", "")
    if encoding == "gzip":
        body = gzip.decompress(body)
    elif encoding == "deflate":
        body = zlib.decompress(body)
    length = int(asked.headers.get(_HEADER_LENGTH.lower(), len(body)))
    if length > len(body):
        text = f"inference header size should be in range (0, {len(body)}), got: {length}"
        raise RefusedError(Code.INVALID_ARGUMENT, text)
    try:
        content = json.loads(body[:length])
    except ValueError as error:
        text = "failed to parse the request JSON buffer: Invalid value. at 1"
        raise RefusedError(Code.INTERNAL, text) from error
    at = length
    message = pb.ModelInferRequest(model_name=name, model_version=version, id=str(content.get("id", "")))
    _set_parameters(message.parameters, content.get("parameters", {}))
    for entry in content.get("inputs", ()):
        tensor = message.inputs.add()
        tensor.name, tensor.datatype = entry["name"], entry["datatype"]
        tensor.shape.extend(entry["shape"])
        parameters = dict(entry.get("parameters", {}))
        count = parameters.pop("binary_data_size", None)
        _set_parameters(tensor.parameters, parameters)
        if count is not None:
            message.raw_input_contents.append(body[at : at + count])
            at += count
        elif "shared_memory_region" not in parameters:
            message.raw_input_contents.append(_from_json(entry["datatype"], entry.get("data", [])))
    by_default = bool(content.get("parameters", {}).get("binary_data_output", False))
    binary: dict[str, bool] = {}
    for entry in content.get("outputs", ()):
        output = message.outputs.add()
        output.name = entry["name"]
        parameters = dict(entry.get("parameters", {}))
        binary[entry["name"]] = bool(parameters.pop("binary_data", by_default))
        _set_parameters(output.parameters, parameters)
    return message, lambda output: binary.get(output, by_default)


def _set_parameters(target: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, bool):
            target[key].bool_param = value
        elif isinstance(value, int):
            target[key].int64_param = value
        else:
            target[key].string_param = str(value)


def _flat(data: Any) -> list[Any]:
    return [item for part in data for item in _flat(part)] if isinstance(data, list) else [data]


def _from_json(datatype: str, data: Any) -> bytes:
    values = _flat(data)
    if datatype == BYTES:
        return joined([str(value).encode() for value in values])
    return struct.pack(f"<{len(values)}{FORMATS[datatype]}", *values)


def _to_json(datatype: str, data: bytes) -> list[Any]:
    if datatype == BYTES:
        return [text.decode("utf-8", "replace") for text in texts_of(data)]
    kind = FORMATS[datatype]
    return list(struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data))


def write_inference(made: pb.ModelInferResponse, binary: Callable[[str], bool]) -> HttpReply:
    """The HTTP form of a gRPC inference response."""
    content: dict[str, Any] = {"model_name": made.model_name, "model_version": made.model_version}
    if made.id:
        content = {"id": made.id, **content}
    outputs, pieces = [], []
    for output, data in zip(made.outputs, made.raw_output_contents, strict=True):
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if "shared_memory_region" in output.parameters:
            entry["parameters"] = {
                key: value.string_param or value.int64_param for key, value in output.parameters.items()
            }
        elif binary(output.name):
            entry["parameters"] = {"binary_data_size": len(data)}
            pieces.append(data)
        else:
            entry["data"] = _to_json(output.datatype, data)
        outputs.append(entry)
    content["outputs"] = outputs
    head = _json(content)
    if not pieces:
        return HttpReply(body=head)
    return HttpReply(
        body=head + b"".join(pieces),
        content_type="application/octet-stream",
        headers={_HEADER_LENGTH: str(len(head))},
    )
