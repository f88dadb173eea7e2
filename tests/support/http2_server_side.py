"""The server's end of an HTTP/2 connection without its socket, by the library h2, which shares no code with ours."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings

GOOD_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
GOOD_TRAILERS = [("grpc-status", "0"), ("grpc-message", "")]
_FRAME = 16_384


def message_of(content: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message around some content."""
    return bytes([compressed]) + len(content).to_bytes(4, "big") + content


@dataclass
class Asked:
    """A request, as far as it has come."""

    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: ErrorCodes | int | None = None


class ServerSide:
    """It raises for a byte beyond a window that it gave, a frame larger than it takes, a stream too many.

    Args:
        settings: What it announces; others are as HTTP/2 has them.
        step: It gives as much window back as it got, at once (None), in pieces of so many bytes, or (0) not.
    """

    def __init__(self, settings: Mapping[SettingCodes, int] | None = None, *, step: int | None = None) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.local_settings = Settings(client=False, initial_values=dict(settings or {}))
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        self.h2.initiate_connection()
        self.asked: dict[int, Asked] = {}
        self.largest_piece = 0
        self.acknowledged = 0
        self.pongs = 0
        self._step = step

    def receive(self, data: bytes) -> list[int]:
        """Take bytes from the client. Returns the streams whose requests are whole now."""
        return [number for event in self.h2.receive_data(data) if (number := self._see(event))]

    def take(self) -> bytes:
        """What is to be sent to the client."""
        return self.h2.data_to_send()

    def answer(self, stream: int, content: bytes = b"", trailers: list[tuple[str, str]] = GOOD_TRAILERS) -> None:
        """Answer a request with one message."""
        self.begin(stream)
        self.send(stream, message_of(content))
        self.end(stream, trailers)

    def begin(self, stream: int, headers: list[tuple[str, str]] = GOOD_HEADERS) -> None:
        """Send the headers of an answer."""
        self.h2.send_headers(stream, headers)

    def send(self, stream: int, data: bytes, *, padding: int | None = None, end: bool = False) -> None:
        """Send DATA."""
        pieces = [data[at : at + _FRAME] for at in range(0, len(data), _FRAME)] or [b""]
        for number, piece in enumerate(pieces, 1):
            self.h2.send_data(stream, piece, pad_length=padding, end_stream=end and number == len(pieces))

    def end(self, stream: int, trailers: list[tuple[str, str]] = GOOD_TRAILERS) -> None:
        """End an answer."""
        self.h2.send_headers(stream, trailers, end_stream=True)

    def fail(self, stream: int, status: int, message: str) -> None:
        """Answer with nothing but a status."""
        self.h2.send_headers(
            stream, [*GOOD_HEADERS, ("grpc-status", str(status)), ("grpc-message", message)], end_stream=True
        )

    def give(self, stream: int, count: int) -> None:
        """Give some window, to a stream or, as stream 0, to the connection."""
        self.h2.increment_flow_control_window(count, stream or None)

    def _see(self, event: Event) -> int | None:
        if isinstance(event, SettingsAcknowledged):
            self.acknowledged += 1
        elif isinstance(event, PingAckReceived):
            self.pongs += 1
        elif isinstance(event, RequestReceived):
            self.asked[event.stream_id] = Asked({str(name): str(value) for name, value in event.headers or ()})
        elif isinstance(event, DataReceived):
            self._take_piece(event.stream_id, event.data or b"", event.flow_controlled_length or 0, event.stream_ended)
        elif isinstance(event, StreamReset):
            self.asked[event.stream_id].reset = event.error_code
        elif isinstance(event, StreamEnded):
            self.asked[event.stream_id].ended = True
            return event.stream_id
        return None

    def _take_piece(self, stream: int, data: bytes, count: int, ended: StreamEnded | None) -> None:
        self.asked[stream].body += data
        self.largest_piece = max(self.largest_piece, len(data))
        step = count if self._step is None else self._step
        for at in range(0, count if step else 0, step or 1):
            piece = min(step, count - at)
            self.give(0, piece)
            if not ended:
                # It may have been reset in what came with this piece.
                with suppress(StreamClosedError, KeyError):
                    self.give(stream, piece)
