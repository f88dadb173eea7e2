from __future__ import annotations

import pytest
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tuner.load.wire import frames
from tuner.load.wire.frames import ProtocolError


def parsed(raw: bytes) -> Frame:
    """As another library reads it."""
    read, length = Frame.parse_frame_header(memoryview(raw[:9]))
    assert length == len(raw) - 9
    read.parse_body(memoryview(raw[9:]))
    return read


def test_frames_are_read_by_others_as_they_were_meant() -> None:
    settings = parsed(frames.settings({frames.HEADER_TABLE_SIZE: 0, frames.MAX_FRAME_SIZE: 2**24 - 1}))
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {1: 0, 5: 2**24 - 1}
    update = parsed(frames.window_update(3, 2**31 - 1))
    assert isinstance(update, WindowUpdateFrame)
    assert (update.stream_id, update.window_increment) == (3, 2**31 - 1)
    reset = parsed(frames.reset(2**31 - 1, frames.CANCEL))
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (2**31 - 1, 8)
    away = parsed(frames.frame(frames.GOAWAY, 0, 0, bytes(8)))
    assert isinstance(away, GoAwayFrame)


@pytest.mark.parametrize("size", [0, 1, 0xFFFF, 0x10000, 2**24 - 1])
def test_the_length_of_a_frame_has_three_bytes(size: int) -> None:
    raw = frames.frame(frames.DATA, 0, 1, bytes(size))
    assert int.from_bytes(raw[:3], "big") == size == len(raw) - 9


def test_settings_are_read_in_order() -> None:
    payload = bytes.fromhex("0003 00000064 0004 7fffffff 00ff 00000001 0003 00000000")
    assert frames.read_settings(payload) == [(3, 100), (4, 2**31 - 1), (255, 1), (3, 0)]


@pytest.mark.parametrize("payload", ["0003000000", "000480000000", "000500003fff", "000501000000"])
def test_settings_that_cannot_be_are_errors(payload: str) -> None:
    with pytest.raises(ProtocolError):
        frames.read_settings(bytes.fromhex(payload))


def test_error_codes_have_names() -> None:
    assert frames.error_name(0) == "NO_ERROR"
    assert frames.error_name(13) == "HTTP_1_1_REQUIRED"
    assert frames.error_name(14) == "error 14"
    assert (frames.REFUSED_STREAM, frames.CANCEL) == (7, 8)


@pytest.mark.parametrize(
    ("flags", "payload", "content"),
    [
        (0, b"abc", b"abc"),
        (frames.PADDED, b"\0abc", b"abc"),
        (frames.PADDED, b"\2abc", b"a"),
        (frames.PADDED, b"\3abc", b""),
        (frames.HAS_PRIORITY, b"12345abc", b"abc"),
        (frames.PADDED | frames.HAS_PRIORITY, b"\x0112345abc", b"ab"),
    ],
)
def test_padding_and_priority_are_taken_off(flags: int, payload: bytes, content: bytes) -> None:
    assert frames.unpadded(flags, payload, priority=True) == content


@pytest.mark.parametrize(
    ("flags", "payload"),
    [(frames.PADDED, b""), (frames.PADDED, b"\4abc"), (frames.HAS_PRIORITY, b"1234"), (0x28, b"\x0312345ab")],
)
def test_more_padding_than_payload_is_an_error(flags: int, payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.unpadded(flags, payload, priority=True)
