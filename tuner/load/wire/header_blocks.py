"""Header blocks (HPACK, RFC 7541): writes the block of our requests, and reads the peer's blocks.

We announce a header table of size 0, which makes the peer's blocks stateless. So a block is decoded once, and
recognised by its bytes afterwards. Every new block is decoded, so that no status other than 0 is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import hpack

from tuner.load.failures import CODES, describe
from tuner.load.wire.frames import ProtocolError
from tuner.options.endpoint import Endpoint

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
# Distinct blocks to remember; error messages with ids could otherwise fill memory.
_MOST_KNOWN = 4096
# gRPC status by HTTP status, for responses without `grpc-status` (gRPC's http-grpc-status-mapping.md).
_HTTP_CODES = {
    "400": "INTERNAL",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED",
    "429": "UNAVAILABLE",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}

_CODES = {str(number): name for number, name in enumerate(CODES)}

OK: Final = "OK"


@dataclass(frozen=True)
class Meaning:
    """The meaning of a header block for its stream.

    Attributes:
        status: `OK`, or `CODE: message`; None: no status yet, the answer goes on.
        informational: Whether it is an interim response (HTTP 1xx).
    """

    status: str | None
    informational: bool = False


def request_block(endpoint: Endpoint) -> bytes:
    """The header block of every inference request; without indexing, so that all requests share one block."""
    headers = [
        (":method", "POST"),
        (":scheme", "https" if endpoint.tls else "http"),
        (":path", _METHOD),
        (":authority", endpoint.address),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "tritontune"),
        *endpoint.headers,
    ]
    return bytes(hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in headers]))


class HeaderBlocks:
    """Reads the header blocks of a connection."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        # Some servers do not confirm the table size that we announced.
        self._decoder.header_table_size = self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, Meaning] = {}

    def meaning(self, block: bytes) -> Meaning:
        """The meaning of a block.

        Raises:
            ProtocolError: the block cannot be decoded.
        """
        meaning = self._known.get(block)
        if meaning is None:
            meaning = self._decode(block)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[block] = meaning
        return meaning

    def _decode(self, block: bytes) -> Meaning:
        try:
            headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        except (hpack.HPACKError, UnicodeDecodeError, IndexError, ValueError) as error:
            raise ProtocolError(f"header block cannot be decoded (COMPRESSION_ERROR): {error}") from None
        http = headers.get(":status", "200")
        if "grpc-status" in headers:
            return Meaning(_status(headers["grpc-status"], headers.get("grpc-message", "")))
        if http.startswith("1"):
            return Meaning(None, informational=True)
        if http != "200":
            return Meaning(describe(_HTTP_CODES.get(http, "UNKNOWN"), f"the server answered with HTTP status {http}"))
        return Meaning(None)


def _status(number: str, message: str) -> str:
    code = _CODES.get(number, f"status {number}")
    return OK if code == OK else describe(code, unquote(message))
