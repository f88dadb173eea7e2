"""HTTP/2 frames (RFC 9113): constants, and functions that write and check them."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)

ERRORS: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
CANCEL: Final = ERRORS.index("CANCEL")
REFUSED_STREAM: Final = ERRORS.index("REFUSED_STREAM")

DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME: Final = 16_384
LARGEST_WINDOW: Final = 2**31 - 1
LARGEST_FRAME: Final = 2**24 - 1
LAST_STREAM: Final = 2**31 - 1

HEAD: Final = struct.Struct(">BHBBI")
"""A frame's first 9 bytes: the upper 8 and lower 16 bits of the payload's length, type, flags, stream."""
HEAD_BYTES: Final = 9
_SETTING = struct.Struct(">HI")


class ProtocolError(Exception):
    """The peer violates HTTP/2, so that the connection cannot be used any more."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    length = len(payload)
    return HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings in a frame's payload, in order.

    Raises:
        ProtocolError: the length is no multiple of 6, or a value is out of its range.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError(f"SETTINGS frame with length {len(payload)}, not a multiple of 6 (FRAME_SIZE_ERROR)")
    values = list(_SETTING.iter_unpack(payload))
    for name, value in values:
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ProtocolError(f"SETTINGS_INITIAL_WINDOW_SIZE {value} above 2^31 - 1 (FLOW_CONTROL_ERROR)")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME <= value <= LARGEST_FRAME:
            raise ProtocolError(f"SETTINGS_MAX_FRAME_SIZE {value} not in 2^14..2^24 - 1 (PROTOCOL_ERROR)")
    return values


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def reset(stream: int, error: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, error.to_bytes(4, "big"))


def error_name(number: int) -> str:
    """The name of an error code."""
    return ERRORS[number] if number < len(ERRORS) else f"error {number}"


def unpadded(flags: int, payload: bytes, *, priority: bool = False) -> bytes:
    """A payload without its padding and, for HEADERS, without its priority.

    Raises:
        ProtocolError: the padding is longer than the payload.
    """
    start, padding = 0, 0
    if flags & PADDED:
        start, padding = 1, payload[0] if payload else 1
    if priority and flags & HAS_PRIORITY:
        start += 5
    if start + padding > len(payload):
        raise ProtocolError("frame with more padding than payload (PROTOCOL_ERROR)")
    return payload[start : len(payload) - padding]
