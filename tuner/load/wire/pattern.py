"""Knows a right answer at a glance: of answers of one size, only the stream's number and the content differ."""

from __future__ import annotations

from tuner.load.wire import frames
from tuner.load.wire.frames import DATA, END_HEADERS, END_STREAM, HEADERS

_NAME_BYTES = 4


class Pattern:
    """The three frames of an answer that came whole and well, one behind the other.

    What does not fit, in whichever byte, is for the parser. So a pattern makes nothing of what the parser would not.

    Args:
        headers: The header block in front.
        size: Bytes of the only DATA frame, which holds one gRPC message.
        trailers: The header block behind, which says that all is well.
    """

    __slots__ = ("_after", "_before", "_first", "_last", "_middle", "_places", "size", "total")

    def __init__(self, headers: bytes, size: int, trailers: bytes) -> None:
        first = frames.frame(HEADERS, END_HEADERS, 0, headers)
        data = frames.frame(DATA, 0, 0)[:-_NAME_BYTES]
        data = size.to_bytes(3, "big") + data[3:]
        last = frames.frame(HEADERS, END_HEADERS | END_STREAM, 0, trailers)
        message = b"\0" + (size - 5).to_bytes(4, "big")
        self._first, self._before = first[:5], first[9:] + data
        self._middle = message
        self._last, self._after = last[:5], last[9:]
        name = 9 + len(self._before)
        content = name + _NAME_BYTES
        ending = content + size
        self._places = (name, content, content + len(message), ending, ending + 5, ending + 9)
        self.size = size
        self.total = ending + len(last)

    def match(self, data: bytes, at: int) -> int:
        """The stream whose answer lies whole at a place, or 0."""
        answer = data[at : at + self.total]
        name, content, message, ending, last, after = self._places
        number = answer[5:9]
        if (
            answer[name:content] == number
            and answer[last:after] == number
            and answer[:5] == self._first
            and answer[9:name] == self._before
            and answer[content:message] == self._middle
            and answer[ending:last] == self._last
            and answer[after:] == self._after
        ):
            return int.from_bytes(number, "big")
        return 0
