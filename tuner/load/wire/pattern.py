"""Recognises a correct answer by its bytes: answers of one size differ only in stream number and content."""

from __future__ import annotations

import re
from collections.abc import Callable

from tuner.load.wire import frames
from tuner.load.wire.frames import DATA, END_HEADERS, END_STREAM, HEADERS
from tuner.load.wire.stream import PREFIX_BYTES

_BEFORE_NUMBER = 5  # length, type and flags of a frame


class Pattern:
    """A regular expression for the three frames of a successful answer: HEADERS, DATA, trailers.

    An answer that differs in any other byte is left to the parser, so a pattern accepts no incorrect answer.

    Args:
        headers: The first header block.
        size: Bytes of the only DATA frame, which holds one gRPC message.
        trailers: The last header block, with status OK.

    Attributes:
        match: `match(data, offset)` matches a whole answer at an offset; its first group is the stream number.
        size: Bytes of the DATA frame.
        total: Bytes of the answer.
    """

    __slots__ = ("match", "size", "total")

    def __init__(self, headers: bytes, size: int, trailers: bytes) -> None:
        content = size - PREFIX_BYTES
        message = b"\0" + content.to_bytes(4, "big")
        first = frames.frame(HEADERS, END_HEADERS, 0, headers)
        data = frames.frame(DATA, 0, 0, message + bytes(content))
        last = frames.frame(HEADERS, END_HEADERS | END_STREAM, 0, trailers)
        parts = (
            re.escape(first[:_BEFORE_NUMBER]),
            b"(.{4})",
            re.escape(headers + data[:_BEFORE_NUMBER]),
            rb"\1",
            re.escape(message),
            b".{%d}" % content,
            re.escape(last[:_BEFORE_NUMBER]),
            rb"\1",
            re.escape(trailers),
        )
        self.match: Callable[[bytes, int], re.Match[bytes] | None] = re.compile(b"".join(parts), re.DOTALL).match
        self.size = size
        self.total = len(first) + len(data) + len(last)
