"""Knows a right answer at a glance: of answers of one size, only the stream's number and the content differ."""

from __future__ import annotations

import re
from collections.abc import Callable

from tuner.load.wire import frames
from tuner.load.wire.frames import DATA, END_HEADERS, END_STREAM, HEADERS
from tuner.load.wire.stream import PREFIX_BYTES

_BEFORE_NUMBER = 5  # of a frame: its length, type and flags


class Pattern:
    """The three frames of an answer that came whole and well, one behind the other.

    What does not fit, in whichever byte, is for the parser. So a pattern makes nothing of what the parser would not.

    Args:
        headers: The header block in front.
        size: Bytes of the only DATA frame, which holds one gRPC message.
        trailers: The header block behind, which says that all is well.

    Attributes:
        match: Finds the answer that lies whole at a place, if one does; its first group is the stream's number.
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
