"""The client side of an HTTP/2 connection for unary gRPC, without a socket: bytes in, bytes out (RFC 9113)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tuner.load.failures import describe
from tuner.load.wire import frames
from tuner.load.wire.frames import DATA, HEAD, HEAD_BYTES, HEADERS, ProtocolError
from tuner.load.wire.header_blocks import OK, HeaderBlocks
from tuner.load.wire.pattern import Pattern
from tuner.load.wire.stream import PREFIX_BYTES, Stream

# The largest header block from a peer, in bytes, over all of its frames.
_LARGEST_BLOCK = 1 << 20
# The peer gets the largest window. It is renewed when half of it is used.
_RENEW_AT = frames.LARGEST_WINDOW // 2
_MOST_TRIES = 3
# Above this number, stream numbers may run out, and each must be checked.
_LAST_AT_EASE: Final = frames.LAST_STREAM - (1 << 17)
_RESET_CODES = {
    "CANCEL": "CANCELLED",
    "REFUSED_STREAM": "UNAVAILABLE",
    "ENHANCE_YOUR_CALM": "RESOURCE_EXHAUSTED",
    "INADEQUATE_SECURITY": "PERMISSION_DENIED",
}


_UPDATE = frames.window_update(0, 0)[:HEAD_BYTES]

# The parts of an answer that make a pattern: header block, bytes of DATA, trailers.
_Look = tuple[bytes, int, bytes]


@dataclass
class _OpenBlock:
    """A header block that CONTINUATION frames continue."""

    stream: int
    flags: int
    block: bytearray


class Http2Connection:
    """The state of one HTTP/2 connection.

    Bytes to send collect in `out`, and requests that have ended in `finished`; the caller empties both.

    Attributes:
        out: Pieces of bytes to send, in order.
        bulky: Whether some pieces are large, so that they should not be copied.
        streams: Requests under way by stream number, in the order in which they were sent.
        unsent: Requests under way that wait for a flow-control window, by stream number.
        finished: Requests that have ended; `Stream.error` has their errors.
        refused: Requests that the peer did not process, so that they may be sent again.
        number: The number of the next stream.
        window: Bytes of DATA that the peer takes now, over all streams.
        peer_is_known: Whether the peer's settings have arrived.
        closing: Whether the connection takes no more requests.
    """

    def __init__(self, *, first_stream: int = 1) -> None:
        self.out: list[bytes | memoryview] = [
            frames.PREFACE,
            frames.settings(
                {
                    frames.HEADER_TABLE_SIZE: 0,
                    frames.ENABLE_PUSH: 0,
                    frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW,
                    frames.MAX_FRAME_SIZE: frames.LARGEST_FRAME,
                }
            ),
            frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW),
        ]
        self.bulky = False
        self.streams: dict[int, Stream] = {}
        self.finished: list[Stream] = []
        self.refused: list[Stream] = []
        self.peer_is_known = False
        self.closing = False
        self.number = first_stream
        self.window = frames.DEFAULT_WINDOW
        self._blocks = HeaderBlocks()
        self._kept = b""
        # The DATA frame that is being received: its stream, its remaining bytes, and whether it ends the stream.
        self._data: Stream | None = None
        self._left = 0
        self._ends = False
        self._open_block: _OpenBlock | None = None
        self._unrenewed = 0
        self._stream_window = frames.DEFAULT_WINDOW
        self._largest_frame = frames.DEFAULT_FRAME
        self._most_streams = frames.LAST_STREAM
        self.unsent: dict[int, Stream] = {}
        self._has_more_window = False
        # The header block of the last parsed answer, the look of the answers that match the pattern, and the pattern.
        self._headers_seen = b""
        self._seen: _Look | None = None
        self._learned: _Look | None = None
        self._pattern: Pattern | None = None
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            DATA: self._padded_data,
            HEADERS: self._headers,
            frames.CONTINUATION: self._continuation,
            frames.GOAWAY: self._goaway,
            frames.PING: self._ping,
            frames.PUSH_PROMISE: self._push,
            frames.RST_STREAM: self._reset,
            frames.SETTINGS: self._settings,
            frames.WINDOW_UPDATE: self._window_update,
        }

    @property
    def has_room(self) -> bool:
        """Whether it takes another request now."""
        return not self.closing and len(self.streams) < self._most_streams

    @property
    def at_ease(self) -> Pattern | None:
        """The pattern of answers if the connection is in its usual state; else None.

        In this state a small request has room if it fits into `window`.
        """
        if self._kept or self._left or self._open_block or self.unsent or self.out or self.closing:
            return None
        crowded = len(self.streams) > self._most_streams or self._stream_window < frames.DEFAULT_FRAME
        return None if crowded or self.number > _LAST_AT_EASE else self._pattern

    def send(self, stream: Stream) -> None:
        """Send a request; there must be room for it."""
        number = self.number
        self.number += 2
        if self.number > frames.LAST_STREAM:
            self.closing = True
        stream.number = number
        self.streams[number] = stream
        framed = stream.framed
        name = number.to_bytes(4, "big")
        if framed.small and framed.size <= self.window and framed.size <= self._stream_window and not self.unsent:
            self.window -= framed.size
            self.out += (framed.before, name, framed.between, name, framed.body)
            return
        self.out.append(framed.before + name + framed.block)
        stream.at, stream.window = 0, self._stream_window
        self.unsent[number] = stream
        self._send_unsent()

    def cancel(self, stream: Stream, error: str) -> None:
        """End a request that is under way, with an error."""
        self.unsent.pop(stream.number, None)
        self.out.append(frames.reset(stream.number, frames.CANCEL))
        self._finish(stream, error)

    def lose(self, error: str) -> None:
        """End all requests under way, as the connection is lost."""
        self.closing = True
        for stream in list(self.streams.values()):
            self._finish(stream, error)

    def receive(self, data: bytes) -> None:  # noqa: PLR0912 (hot path: function calls are expensive)
        """Process bytes from the peer, which may be cut anywhere.

        Raises:
            ProtocolError: the bytes violate HTTP/2. The connection cannot be used any more.
        """
        if self._kept:
            data = self._kept + data
        if not self.peer_is_known:
            _check_first_words(data)
        at, end = 0, len(data)
        while True:
            if self._left:
                at = self._go_on_with_data(data, at)
                if self._left:
                    break
            if end - at < HEAD_BYTES:
                break
            high, low, kind, flags, number = HEAD.unpack_from(data, at)
            length, start = high << 16 | low, at + HEAD_BYTES
            if self._open_block is not None and kind != frames.CONTINUATION:
                raise ProtocolError("another frame within a header block (PROTOCOL_ERROR)")
            if kind == DATA and not flags & frames.PADDED:
                at = start
                self._begin_data(number & frames.LAST_STREAM, length, flags)
                continue
            if kind == HEADERS and self._pattern is not None and self._take_whole(self._pattern, data, at):
                at += self._pattern.total
                continue
            if length > _LARGEST_BLOCK and kind != DATA:
                raise ProtocolError(f"frame of {length} bytes, more than {_LARGEST_BLOCK} (FRAME_SIZE_ERROR)")
            if end - start < length:
                break
            at = start + length
            # PRIORITY is for servers, and frames of unknown types must be ignored.
            if handle := self._handlers.get(kind):
                handle(flags, number & frames.LAST_STREAM, data[start:at])
        self._kept = data[at:]
        if self._has_more_window:
            # Not before, so that windows that arrived together are used together, in large frames.
            self._has_more_window = False
            self._send_unsent()

    def _go_on_with_data(self, data: bytes, at: int) -> int:
        """Process the available part of the current DATA frame. Returns the offset behind it."""
        stop = min(at + self._left, len(data))
        self._left -= stop - at
        self._take(data, at, stop)
        if not self._left:
            self._end_data()
        return stop

    def _take_whole(self, pattern: Pattern, data: bytes, at: int) -> bool:
        """Process the answer at an offset, if all of it is there and it matches the pattern."""
        match = pattern.match(data, at)
        if match is None:
            return False
        number = int.from_bytes(match[1], "big")
        stream = self.streams.get(number)
        if stream is None or stream.received or stream.answer is not None or number in self.unsent:
            return False
        del self.streams[number]
        stream.received = pattern.size
        self.finished.append(stream)
        self.count(pattern.size)
        return True

    def take_update(self, data: bytes, at: int) -> int:
        """Process a WINDOW_UPDATE of the connection at an offset, if it is whole. Returns the offset behind it."""
        end = at + len(_UPDATE) + 4
        if data.startswith(_UPDATE, at) and end <= len(data):
            increment = int.from_bytes(data[end - 4 : end], "big")
            if 0 < increment <= frames.LARGEST_WINDOW - self.window:
                self.window += increment
                return end
        return at

    def _learn(self, stream: Stream, trailers: bytes) -> None:
        """Make a pattern from a successful answer, if the answer before it had the same parts.

        To make a pattern takes as long as to parse ten answers, so it does not pay if all answers differ.
        """
        seen = self._headers_seen, stream.received, trailers
        if seen == self._seen != self._learned and self._headers_seen and stream.received <= frames.DEFAULT_FRAME:
            self._learned, self._pattern = seen, Pattern(*seen)
        self._seen = seen

    def count(self, length: int) -> None:
        """Count received DATA bytes, and renew the peer's window when half of it is used."""
        self._unrenewed += length
        if self._unrenewed > _RENEW_AT:
            self.out.append(frames.window_update(0, self._unrenewed))
            self._unrenewed = 0

    def _begin_data(self, number: int, length: int, flags: int) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number, "DATA")
        self._data, self._left, self._ends = stream, length, bool(flags & frames.END_STREAM)
        self.count(length)
        if not length:
            self._end_data()

    def _take(self, data: bytes, start: int, stop: int) -> None:
        """Process a part of the current DATA frame."""
        stream = self._data
        if stream is None:
            return
        if stream.received < PREFIX_BYTES:
            stream.prefix += data[start : min(stop, start + PREFIX_BYTES - stream.received)]
            if len(stream.prefix) == PREFIX_BYTES:
                stream.wanted += int.from_bytes(stream.prefix[1:], "big")
        stream.received += stop - start
        if stream.answer is not None:
            stream.answer += data[start:stop]

    def _end_data(self) -> None:
        stream, self._data = self._data, None
        if self._ends and stream is not None and stream.number in self.streams:
            self._finish(stream, describe("INTERNAL", "the server ended the stream without a gRPC status"))

    def _whole_block(self, number: int, block: bytes, flags: int) -> None:
        meaning = self._blocks.meaning(block)
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number, "HEADERS")
            return
        status = meaning.status
        if flags & frames.END_STREAM:
            if status is None:
                status = describe("INTERNAL", "the server ended the stream without a gRPC status")
            elif status == OK:
                status = _fault(stream)
                if status is None:
                    self._learn(stream, block)
            self._finish(stream, status)
        elif status is None and not meaning.informational:
            self._headers_seen = block
        elif status is not None and status != OK:
            # An HTTP error with a body, which is not needed.
            self.cancel(stream, status)

    def _finish(self, stream: Stream, error: str | None) -> None:
        if self._remove(stream):
            self.out.append(frames.reset(stream.number, frames.CANCEL))
        stream.error = error
        self.finished.append(stream)

    def _remove(self, stream: Stream) -> bool:
        """Forget a request. Returns whether some of it was not sent yet."""
        del self.streams[stream.number]
        if self._data is stream:
            # The rest of the frame belongs to no request, and the `Stream` may soon be used again.
            self._data = None
        return self.unsent.pop(stream.number, None) is not None

    def _padded_data(self, flags: int, number: int, payload: bytes) -> None:
        content = frames.unpadded(flags, payload)
        self._begin_data(number, len(payload), flags)
        self._left = 0
        self._take(content, 0, len(content))
        self._end_data()

    def _push(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ProtocolError("PUSH_PROMISE frame, though push is disabled (PROTOCOL_ERROR)")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ProtocolError("PING frame with length != 8 (FRAME_SIZE_ERROR)")
        if number:
            raise ProtocolError(f"PING frame on stream {number} instead of 0 (PROTOCOL_ERROR)")
        if not flags & frames.ACK:
            self.out.append(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _settings(self, flags: int, _number: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if payload:
                raise ProtocolError("SETTINGS frame with ACK and a payload (FRAME_SIZE_ERROR)")
            return
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                for stream in self.unsent.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == frames.MAX_FRAME_SIZE:
                self._largest_frame = value
            elif name == frames.MAX_CONCURRENT_STREAMS:
                self._most_streams = value
        self.peer_is_known = self._has_more_window = True
        self.out.append(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(f"WINDOW_UPDATE frame with length {len(payload)} != 4 (FRAME_SIZE_ERROR)")
        increment = int.from_bytes(payload, "big") & frames.LAST_STREAM
        if not increment:
            raise ProtocolError("WINDOW_UPDATE frame with increment 0 (PROTOCOL_ERROR)")
        if number == 0:
            self.window += increment
            if self.window > frames.LARGEST_WINDOW:
                raise ProtocolError("flow-control window above 2^31 - 1 (FLOW_CONTROL_ERROR)")
        elif stream := self.unsent.get(number):
            stream.window += increment
            if stream.window > frames.LARGEST_WINDOW:
                raise ProtocolError("flow-control window above 2^31 - 1 (FLOW_CONTROL_ERROR)")
        else:
            self._check_known(number, "WINDOW_UPDATE")
        self._has_more_window = True

    def _goaway(self, _flags: int, _number: int, payload: bytes) -> None:
        if len(payload) < 8:
            raise ProtocolError(f"GOAWAY frame with length {len(payload)} < 8 (FRAME_SIZE_ERROR)")
        last = int.from_bytes(payload[:4], "big") & frames.LAST_STREAM
        self.closing = True
        reason = frames.error_name(int.from_bytes(payload[4:8], "big"))
        for stream in [stream for number, stream in self.streams.items() if number > last]:
            self._give_back(stream, describe("UNAVAILABLE", f"the server is going away (GOAWAY {reason})"))

    def _reset(self, _flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(f"RST_STREAM frame with length {len(payload)} != 4 (FRAME_SIZE_ERROR)")
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number, "RST_STREAM")
            return
        code = int.from_bytes(payload, "big")
        name = frames.error_name(code)
        error = describe(_RESET_CODES.get(name, "INTERNAL"), f"the server reset the stream ({name})")
        self.unsent.pop(number, None)  # The peer wants no more bytes of it.
        if code == frames.REFUSED_STREAM:
            self._give_back(stream, error)
        else:
            self._finish(stream, error)

    def _give_back(self, stream: Stream, error: str) -> None:
        """Give back a request that the peer did not process, to be sent again as gRPC clients do; 3 tries at most."""
        if stream.tries >= _MOST_TRIES:
            self._finish(stream, error)
            return
        self._remove(stream)
        stream.tries += 1
        self.refused.append(stream)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & ~frames.END_STREAM == frames.END_HEADERS:
            self._whole_block(number, payload, flags)
        else:
            payload = frames.unpadded(flags, payload, priority=True)
            self._part_of_block(_OpenBlock(number, flags, bytearray()), flags, payload)

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._open_block is None or self._open_block.stream != number:
            raise ProtocolError("CONTINUATION frame without HEADERS (PROTOCOL_ERROR)")
        self._part_of_block(self._open_block, flags, payload)

    def _part_of_block(self, block: _OpenBlock, flags: int, payload: bytes) -> None:
        block.block += payload
        if len(block.block) > _LARGEST_BLOCK:
            raise ProtocolError(f"header block above {_LARGEST_BLOCK} bytes (ENHANCE_YOUR_CALM)")
        self._open_block = None if flags & frames.END_HEADERS else block
        if self._open_block is None:
            self._whole_block(block.stream, bytes(block.block), block.flags)

    def _check_known(self, number: int, kind: str) -> None:
        """Check that a frame belongs to an opened stream, which may have ended."""
        if not number & 1 or number >= self.number:
            raise ProtocolError(f"{kind} frame on stream {number}, which was never opened (PROTOCOL_ERROR)")

    def _send_unsent(self) -> None:
        """Send as much of large requests as the windows take, the oldest first."""
        for stream in list(self.unsent.values()):
            for piece in self._pieces(stream):
                self.out.append(piece)
            if stream.at == stream.framed.size:
                del self.unsent[stream.number]
            if self.window <= 0:
                return

    def _pieces(self, stream: Stream) -> Iterator[bytes | memoryview]:
        body, size = stream.framed.body, stream.framed.size
        while stream.at < size:
            count = min(size - stream.at, self.window, stream.window, self._largest_frame)
            if count <= 0:
                return
            last = stream.at + count == size
            yield HEAD.pack(count >> 16, count & 0xFFFF, DATA, frames.END_STREAM if last else 0, stream.number)
            yield body[stream.at : stream.at + count]
            self.bulky = True
            stream.at += count
            stream.window -= count
            self.window -= count


def _check_first_words(data: bytes) -> None:
    """Check that the peer begins with SETTINGS; the error quotes its first bytes."""
    if len(data) > 3 and data[3] != frames.SETTINGS:
        raise ProtocolError(f"its first frame is not SETTINGS: {data[:40]!r}")


def _fault(stream: Stream) -> str | None:
    """The fault in the answer of a stream that ended with status OK; None: it is correct."""
    if stream.prefix[:1] not in {b"\0", b""}:
        return describe("INTERNAL", "the answer is compressed, though compression was not requested")
    if stream.received != stream.wanted:
        return describe("INTERNAL", f"the answer has {stream.received} of {stream.wanted} bytes")
    return None
