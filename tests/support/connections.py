"""Our end of an HTTP/2 connection and its peer's, without sockets; and answers as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import hpack
from h2.settings import SettingCodes
from support.http2_server_side import GOOD_HEADERS, GOOD_TRAILERS, ServerSide, message_of

from tuner.load.wire import frames
from tuner.load.wire.frames import DATA, END_HEADERS, END_STREAM, HEADERS
from tuner.load.wire.header_blocks import request_block
from tuner.load.wire.http2_connection import Http2Connection
from tuner.load.wire.stream import Framed, Stream
from tuner.load.workload import Request
from tuner.options.endpoint import Endpoint

REQUEST_BLOCK = request_block(Endpoint("127.0.0.1:8001"))
SETTINGS = frames.settings({})


class Outcome(NamedTuple):
    """What became of a request."""

    slot: int
    received: int
    error: str | None
    answer: bytes | None


def block_of(headers: list[tuple[str, str]], encoder: hpack.Encoder | None = None) -> bytes:
    """A header block as a peer writes it that keeps no table, at first or later on."""
    if encoder is None:
        encoder = hpack.Encoder()
        encoder.header_table_size = 0
    return bytes(encoder.encode(headers))


def raw_answer(
    stream: int,
    content: bytes = b"",
    *,
    trailers: list[tuple[str, str]] = GOOD_TRAILERS,
    encoder: hpack.Encoder | None = None,
) -> bytes:
    """The usual three frames."""
    return (
        frames.frame(HEADERS, END_HEADERS, stream, block_of(GOOD_HEADERS, encoder))
        + frames.frame(DATA, 0, stream, message_of(content))
        + frames.frame(HEADERS, END_HEADERS | END_STREAM, stream, block_of(trailers, encoder))
    )


def framed_of(content: bytes = b"", *, validates: bool = False) -> Framed:
    """A request with some content, whose answer is kept or not."""
    return Framed(Request(content, expected={"OUT": b""} if validates else {}), REQUEST_BLOCK)


def send_requests(connection: Http2Connection, streams: int) -> None:
    """Let the peer say its first words, and send so many requests, in slots from 0 on."""
    connection.receive(SETTINGS)
    for slot in range(streams):
        connection.send(Stream(framed_of(b"request"), slot, 0))
    connection.out.clear()


def known(*, streams: int = 0, first_stream: int = 1) -> Http2Connection:
    """A connection whose peer has said its first words, with so many requests under way, in slots from 0 on."""
    connection = Http2Connection(first_stream=first_stream)
    send_requests(connection, streams)
    return connection


def outcomes(connection: Http2Connection) -> list[Outcome]:
    """What has ended since the last time."""
    ended = [
        Outcome(stream.slot, stream.received, stream.error, None if stream.answer is None else bytes(stream.answer))
        for stream in connection.finished
    ]
    connection.finished.clear()
    return ended


class Pair:
    """A connection and the server's side, which have said their first words.

    Args:
        settings: As for `ServerSide`.
        step: As for `ServerSide`.
        first_stream: As for `Http2Connection`.
    """

    def __init__(
        self, settings: Mapping[SettingCodes, int] | None = None, *, step: int | None = None, first_stream: int = 1
    ) -> None:
        self.client = Http2Connection(first_stream=first_stream)
        self.server = ServerSide(settings, step=step)
        self.whole: list[int] = []
        self.exchange()

    def ask(self, content: bytes = b"", *, slot: int = 0, validates: bool = False) -> Stream:
        """Send a request."""
        stream = Stream(framed_of(content, validates=validates), slot, 0)
        self.client.send(stream)
        return stream

    def exchange(self) -> list[int]:
        """Let both talk until they are silent. Returns the streams whose requests have become whole."""
        before = len(self.whole)
        while True:
            out, there = b"".join(self.client.out), self.server.take()
            self.client.out.clear()
            if not out and not there:
                return self.whole[before:]
            self.whole += self.server.receive(out)
            if there:
                self.client.receive(there)
