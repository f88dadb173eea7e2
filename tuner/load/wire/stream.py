"""A request as HTTP/2 frames, and its state while it is under way."""

from __future__ import annotations

from typing import Final

from tuner.load.wire import frames
from tuner.load.wire.frames import DATA, HEADERS
from tuner.load.workload import Request

PREFIX_BYTES: Final = 5
"""The prefix of a gRPC message: a compression flag (1 byte), and the length (4 bytes, big-endian)."""


class Framed:
    """A request as frames, without the stream number.

    Args:
        request: The request.
        block: The header block of every request.
    """

    __slots__ = ("before", "between", "block", "body", "request", "size", "small", "validates")

    def __init__(self, request: Request, block: bytes) -> None:
        self.request = request
        self.validates = bool(request.expected)
        message = b"\0" + len(request.body).to_bytes(4, "big") + request.body
        self.size = len(message)
        self.small = self.size <= frames.DEFAULT_FRAME
        # The bytes before the stream number, and the bytes between its first and second occurrence.
        self.before = frames.frame(HEADERS, frames.END_HEADERS, 0, block)[:5]
        self.block = block
        self.between = block + frames.frame(DATA, frames.END_STREAM, 0, message)[:5] if self.small else b""
        self.body: bytes | memoryview = message if self.small else memoryview(message)


class Stream:
    """A request under way.

    Attributes:
        framed: The request.
        slot: The slot of the closed loop that it belongs to; 0 in an open loop.
        sent_ns: When it was sent (closed loop) or due (open loop), on the monotonic clock.
        lag_us: How much later than due it was sent.
        tries: How often it was sent.
        number: The stream number.
        received: Bytes of its DATA frames so far.
        wanted: Bytes expected in all; known from the first 5.
        answer: The DATA, if it is to be checked or returned; else None.
        error: `CODE: message`, once it has failed.
    """

    __slots__ = (
        "answer",
        "at",
        "error",
        "framed",
        "lag_us",
        "number",
        "prefix",
        "received",
        "sent_ns",
        "slot",
        "tries",
        "wanted",
        "window",
    )

    def __init__(self, framed: Framed, slot: int, sent_ns: int, lag_us: int = 0) -> None:
        self.framed = framed
        self.slot = slot
        self.sent_ns = sent_ns
        self.lag_us = lag_us
        self.tries = 1
        self.number = 0
        self.received = 0
        self.wanted = PREFIX_BYTES
        self.prefix = b""
        self.answer: bytearray | None = bytearray() if framed.validates else None
        self.error: str | None = None
        # For a large request: the bytes that were sent, and the bytes that its window still takes.
        self.at = 0
        self.window = 0

    def renew(self, framed: Framed, sent_ns: int) -> None:
        """Become the next request of the same slot."""
        self.framed, self.sent_ns, self.tries = framed, sent_ns, 1
        self.received = 0
        if self.prefix or self.error or self.answer is not None or framed.validates:
            self.answer = bytearray() if framed.validates else None
            self.begin_anew()

    def begin_anew(self) -> None:
        """Reset the state, so that the request can be sent again."""
        self.received, self.error = 0, None
        if self.prefix:
            self.wanted, self.prefix = PREFIX_BYTES, b""
        if self.answer is not None:
            self.answer = bytearray()
