"""Serves gRPC on a connection: HTTP/2 frames, flow control and gRPC messages."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import quote

from hpack import Decoder

from tuner.testing.fake.messages import Code, RefusedError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_ACK = _END_STREAM = 1
_END_HEADERS, _PADDED, _WITH_PRIORITY = 4, 8, 32
_SETTING_WINDOW, _SETTING_FRAME = 4, 5
_DEFAULT_WINDOW = 65_535
_OUR_WINDOW = 1 << 24
_GIVE_BACK = 1 << 20
_KEEP_BLOCKS = 256
_WBITS = {"gzip": 31, "deflate": 15}


def _literal(name: str, value: str) -> bytes:
    parts = [b"\0"]
    for text in (name.encode(), value.encode()):
        if len(text) < 127:
            parts.append(bytes([len(text)]))
        else:
            rest, length = len(text) - 127, bytearray(b"\x7f")
            while rest >= 128:
                length.append(rest % 128 + 128)
                rest //= 128
            length.append(rest)
            parts.append(bytes(length))
        parts.append(text)
    return b"".join(parts)


_HEAD = (
    b"\x88" + _literal("content-type", "application/grpc") + _literal("grpc-accept-encoding", "identity, deflate, gzip")
)
_GOOD = _literal("grpc-status", "0")


def _status(error: RefusedError) -> bytes:
    message = quote(error.text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return _literal("grpc-status", str(int(error.code))) + _literal("grpc-message", message)


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


@dataclass(eq=False)
class Call:
    """A gRPC call of a client.

    Attributes:
        method: The method's name, without the service's.
        headers: The request headers.
        encoding: Compression of responses: `gzip`, `deflate`, or empty.
        on_end: Called when the client has sent its last message.
        on_cancel: Called when the client cancels the call or disconnects.
    """

    connection: GrpcServerConnection
    stream: int
    method: str
    headers: Mapping[str, str]
    on_message: Callable[[bytes], None] = lambda _: None
    on_end: Callable[[], None] = lambda: None
    on_cancel: Callable[[], None] = lambda: None
    encoding: str = ""
    body: bytearray = field(default_factory=bytearray)
    window: int = _DEFAULT_WINDOW
    consumed: int = 0
    headed: bool = False
    over: bool = False
    waiting: bytearray = field(default_factory=bytearray)
    trailers: bytes | None = None

    def send(self, message: bytes) -> None:
        """Send a message."""
        if not self.over:
            self.connection.send(self, self._packed(message))

    def _packed(self, message: bytes) -> bytes:
        if not self.encoding:
            return b"\0" + len(message).to_bytes(4, "big") + message
        packer = zlib.compressobj(wbits=_WBITS[self.encoding])
        content = packer.compress(message) + packer.flush()
        return b"\1" + len(content).to_bytes(4, "big") + content

    def finish(self, error: RefusedError | None = None) -> None:
        """End the call with a status."""
        if not self.over and self.trailers is None:
            self.connection.finish(self, _status(error) if error else _GOOD)

    def answer(self, message: bytes) -> None:
        """Send the only message, and end the call."""
        self.send(message)
        self.finish()


class GrpcHandler(Protocol):
    """A gRPC service."""

    def begin(self, call: Call) -> None:
        """Begin a call, and set its callbacks.

        Raises:
            RefusedError: the call is refused.
        """


class GrpcServerConnection(asyncio.Protocol):
    """One connection of a client.

    Args:
        service: The service.
        others: The server's open connections, which this one joins.
    """

    def __init__(self, service: GrpcHandler, others: set[GrpcServerConnection]) -> None:
        self._service = service
        self._others = others
        self._transport: asyncio.WriteTransport | None = None
        self._in = bytearray()
        self._out: list[bytes] = []
        self._greeted = False
        self._calls: dict[int, Call] = {}
        self._decoder = Decoder()
        self._blocks: dict[bytes, list[tuple[str, str]]] = {}
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._frame_size = 16_384
        self._consumed = 0
        self._block: tuple[int, int, bytearray] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._others.add(self)
        # A header table of size 0 makes equal headers have equal header blocks.
        settings = b"".join(
            number.to_bytes(2, "big") + value.to_bytes(4, "big")
            for number, value in ((1, 0), (3, (1 << 31) - 1), (4, _OUR_WINDOW), (5, _OUR_WINDOW - 1))
        )
        room = (_OUR_WINDOW - _DEFAULT_WINDOW).to_bytes(4, "big")
        self._write(_frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW, 0, 0, room))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """See `asyncio.Protocol`."""
        self._transport = None
        self._others.discard(self)
        for call in list(self._calls.values()):
            self._drop(call)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._in += data
        if not self._greeted:
            if not self._in.startswith(_PREFACE[: len(self._in)]):
                self.close()
                return
            if len(self._in) < len(_PREFACE):
                return
            self._greeted = True
            del self._in[: len(_PREFACE)]
        at, buffer = 0, self._in
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFF_FFFF
            content = bytes(buffer[at + 9 : at + 9 + length])
            at += 9 + length
            self._take(kind, flags, stream, content)
        del buffer[:at]

    def close(self) -> None:
        """Close the connection."""
        if self._transport:
            self._flush()
            self._transport.close()

    def send(self, call: Call, data: bytes) -> None:
        """Send a part of a response as far as the client's flow-control windows allow, and the rest later."""
        if not call.headed:
            call.headed = True
            encoding = _literal("grpc-encoding", call.encoding) if call.encoding else b""
            self._write(_frame(_HEADERS, _END_HEADERS, call.stream, _HEAD + encoding))
        if not call.waiting and len(data) <= min(self._window, call.window, self._frame_size):
            self._window -= len(data)
            call.window -= len(data)
            self._write(_frame(_DATA, 0, call.stream, data))
            return
        call.waiting += data
        self._push(call)

    def finish(self, call: Call, trailers: bytes) -> None:
        """End a response."""
        call.trailers = trailers if call.headed else _HEAD + trailers
        self._push(call)

    def _push(self, call: Call) -> None:
        while call.waiting and (count := min(len(call.waiting), self._window, call.window, self._frame_size)) > 0:
            piece = bytes(call.waiting[:count])
            del call.waiting[:count]
            self._window -= count
            call.window -= count
            self._write(_frame(_DATA, 0, call.stream, piece))
        if not call.waiting and call.trailers is not None and not call.over:
            call.over = True
            self._calls.pop(call.stream, None)
            self._write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, call.stream, call.trailers))

    def _write(self, data: bytes) -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        if self._out and self._transport:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == _DATA:
            self._take_data(flags, stream, content)
        elif kind in (_HEADERS, _CONTINUATION):
            self._take_headers(kind, flags, stream, content)
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(content)
        elif kind == _WINDOW:
            self._take_window(stream, int.from_bytes(content, "big") & 0x7FFF_FFFF)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, content))
        elif kind == _RST and stream in self._calls:
            self._drop(self._calls[stream])

    def _take_headers(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == _HEADERS:
            if flags & _PADDED:
                content = content[1 : len(content) - content[0]]
            if flags & _WITH_PRIORITY:
                content = content[5:]
            self._block = (stream, flags, bytearray())
        if self._block:
            self._block[2].extend(content)
            if flags & _END_HEADERS:
                self._begin()

    def _take_settings(self, content: bytes) -> None:
        for at in range(0, len(content), 6):
            number = int.from_bytes(content[at : at + 2], "big")
            value = int.from_bytes(content[at + 2 : at + 6], "big")
            if number == _SETTING_WINDOW:
                change, self._stream_window = value - self._stream_window, value
                for call in list(self._calls.values()):
                    call.window += change
                    self._push(call)
            elif number == _SETTING_FRAME:
                self._frame_size = value
        self._write(_frame(_SETTINGS, _ACK, 0))

    def _take_window(self, stream: int, count: int) -> None:
        if stream == 0:
            self._window += count
            for call in list(self._calls.values()):
                self._push(call)
        elif (asked := self._calls.get(stream)) is not None:
            asked.window += count
            self._push(asked)

    def _headers(self, block: bytes) -> list[tuple[str, str]]:
        if cached := self._blocks.get(block):
            return cached
        table = self._decoder.header_table
        free_before = not table.dynamic_entries
        headers = [(str(name), str(value)) for name, value in self._decoder.decode(block)]
        # A block that uses the dynamic table may decode differently next time.
        if free_before and not table.dynamic_entries and len(self._blocks) < _KEEP_BLOCKS:
            self._blocks[block] = headers
        return headers

    def _begin(self) -> None:
        if self._block is None:
            return
        (stream, flags, block), self._block = self._block, None
        headers = dict(self._headers(bytes(block)))
        path = headers.get(":path", "")
        call = Call(self, stream, path.rpartition("/")[2], headers, window=self._stream_window)
        self._calls[stream] = call
        try:
            self._service.begin(call)
        except RefusedError as error:
            call.finish(error)
        if flags & _END_STREAM and not call.over:
            call.on_end()

    def _take_data(self, flags: int, stream: int, content: bytes) -> None:
        self._consumed += len(content)
        if self._consumed >= _GIVE_BACK:
            self._write(_frame(_WINDOW, 0, 0, self._consumed.to_bytes(4, "big")))
            self._consumed = 0
        call = self._calls.get(stream)
        if call is None:
            return
        call.consumed += len(content)
        if call.consumed >= _GIVE_BACK and not flags & _END_STREAM:
            self._write(_frame(_WINDOW, 0, stream, call.consumed.to_bytes(4, "big")))
            call.consumed = 0
        if flags & _PADDED:
            content = content[1 : len(content) - content[0]]
        call.body += content
        while not call.over and (message := _next_message(call)) is not None:
            call.on_message(message)
        if flags & _END_STREAM and not call.over:
            call.on_end()

    def _drop(self, call: Call) -> None:
        """Handle the cancellation of a call by the client (RST_STREAM)."""
        self._calls.pop(call.stream, None)
        call.over = True
        call.on_cancel()


def _next_message(call: Call) -> bytes | None:
    if len(call.body) < 5:
        return None
    length = int.from_bytes(call.body[1:5], "big")
    if len(call.body) < 5 + length:
        return None
    message, compressed = bytes(call.body[5 : 5 + length]), call.body[0]
    del call.body[: 5 + length]
    if not compressed:
        return message
    try:
        return zlib.decompress(message, _WBITS[call.headers.get("grpc-encoding", "")])
    except (zlib.error, KeyError):
        call.finish(RefusedError(Code.INTERNAL, "Decompression failed"))
        return None
