"""KServe v2 over HTTP with binary tensors: headers and sequence parameters of requests, and parsing of answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tuner.load.aio.sequencing import Place
from tuner.load.failures import describe
from tuner.load.workload import Request
from tuner.servers.http_answers import own_words

JSON_LENGTH = "inference-header-content-length"
"""The header with the number of JSON bytes in a body; binary tensors follow."""

# HTTP status to gRPC code: as Triton maps its own codes, and as gRPC specifies for proxies.
_CODES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_OK = 200


@dataclass(frozen=True)
class HttpAnswer:
    """The HTTP response to a request.

    Attributes:
        status: The status code.
        reason: The reason phrase.
        json_length: Number of JSON bytes in the body; None: all.
        body: The whole body.
    """

    status: int
    reason: str
    json_length: str | None
    body: bytes

    @property
    def error(self) -> str | None:
        """`CODE: message`; None: success."""
        if self.status == _OK:
            return None
        words = own_words(self.body) or f"HTTP {self.status} {self.reason}"
        return describe(_CODES.get(self.status, "UNKNOWN"), words)

    def as_response(self) -> bytes:
        """The answer as a serialised `ModelInferResponse`, without parameters.

        Raises:
            ValueError: the body is not a valid answer; one line says why.
        """
        from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415 (most workers do without)
        from tritonclient.grpc import service_pb2  # noqa: PLC0415 (the same)

        response = service_pb2.ModelInferResponse()
        try:
            length = int(self.json_length or len(self.body))
            head: dict[str, Any] = json.loads(self.body[:length])
            outputs: list[dict[str, Any]] = head.pop("outputs")
            sizes = [_binary_size(output, output.pop("parameters", {})) for output in outputs]
            head["parameters"], head["outputs"] = {}, outputs
            ParseDict(head, response, ignore_unknown_fields=True)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ParseError) as error:
            raise ValueError("the answer is not KServe v2 with binary tensors") from error
        if sum(sizes) != len(self.body) - length:
            raise ValueError(f"the answer has {len(self.body) - length} bytes of tensors, but declares {sum(sizes)}")
        for size in sizes:
            response.raw_output_contents.append(self.body[length : length + size])
            length += size
        serialised: bytes = response.SerializeToString()
        return serialised


def _binary_size(output: Mapping[str, Any], parameters: Mapping[str, Any]) -> int:
    """Bytes of an output in the body; 0 if it is in shared memory."""
    if "data" in output:
        raise ValueError("in JSON")
    return int(parameters.get("binary_data_size", 0))


def headers_of(request: Request) -> Mapping[str, str]:
    """The headers that describe a request's body."""
    if request.json_length is None:
        return {"content-type": "application/json"}
    return {"content-type": "application/octet-stream", JSON_LENGTH: str(request.json_length)}


def in_sequence(request: Request, place: Place) -> Request:
    """The request with sequence parameters."""
    length = request.json_length or len(request.body)
    head: dict[str, Any] = json.loads(request.body[:length])
    head["parameters"] = {
        **head.get("parameters", {}),
        "sequence_id": place.sequence,
        "sequence_start": place.start,
        "sequence_end": place.end,
    }
    text = json.dumps(head).encode()
    return replace(request, body=text + request.body[length:], json_length=request.json_length and len(text))
