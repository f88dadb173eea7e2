"""The server's side raises for a byte beyond a window that it gave; so that a request arrives is the smaller half."""

from __future__ import annotations

import numpy as np
import pytest
from h2.exceptions import FlowControlError
from h2.settings import SettingCodes
from support.connections import Outcome, Pair, framed_of, known, outcomes, raw_answer
from support.http2_server_side import ServerSide, message_of

from tuner.load.wire import frames
from tuner.load.wire.http2_connection import Http2Connection
from tuner.load.wire.stream import Stream

WINDOW, FRAME = SettingCodes.INITIAL_WINDOW_SIZE, SettingCodes.MAX_FRAME_SIZE


def pattern_of(size: int) -> bytes:
    """Content in which a piece in the wrong place shows."""
    return np.arange(size // 4 + 1, dtype=">u4").tobytes()[:size]


def test_the_server_side_of_these_tests_counts() -> None:
    connection, server = Http2Connection(), ServerSide({WINDOW: 100}, step=0)
    connection.receive(server.take())
    connection.send(Stream(framed_of(bytes(50)), 0, 0))
    connection._stream_window = 1000
    connection.send(Stream(framed_of(bytes(200)), 0, 0))
    with pytest.raises(FlowControlError):
        server.receive(b"".join(connection.out))


@pytest.mark.parametrize(
    ("window", "step", "size"),
    [(1, 1, 0), (1, 1, 700), (1, None, 700), (7, 3, 2000), (0, None, 0), (999, 100, 70_000), (16_384, 5_000, 200_000)],
)
def test_tiny_windows_hold_up_but_break_nothing(window: int, step: int | None, size: int) -> None:
    pair = Pair({WINDOW: window}, step=step)
    for slot in range(3):
        pair.ask(pattern_of(size + slot), slot=slot)
    pair.exchange()
    if not window:
        assert not pair.whole
        for number in (1, 3, 5):
            pair.server.give(number, 10)
        pair.exchange()
    assert sorted(pair.whole) == [1, 3, 5]
    for slot, number in enumerate((1, 3, 5)):
        assert pair.server.asked[number].body == message_of(pattern_of(size + slot))
        pair.server.answer(number, b"abcd")
    pair.exchange()
    assert sorted(outcomes(pair.client)) == [Outcome(slot, 9, None, None) for slot in range(3)]


def test_the_window_of_the_connection_may_be_refilled_byte_by_byte() -> None:
    pair = Pair({WINDOW: 2**31 - 1}, step=0)
    content = pattern_of(65_535 - 5 + 300)
    pair.ask(content)
    pair.ask(b"small", slot=1)
    assert not pair.exchange()
    assert len(pair.server.asked[1].body) == 65_535
    for number in range(1, 301):
        pair.server.give(0, 1)
        pair.exchange()
        assert len(pair.server.asked[1].body) == 65_535 + number
    assert pair.whole == [1]
    assert pair.server.asked[1].body == message_of(content)
    for _ in range(10):
        pair.server.give(0, 1)
        pair.exchange()
    assert pair.whole == [1, 3]


def test_small_requests_use_up_the_window_of_the_connection_too() -> None:
    pair = Pair({WINDOW: 2**31 - 1}, step=0)
    for slot in range(100):
        pair.ask(bytes(995), slot=slot)
    assert len(pair.exchange()) == 65
    pair.server.give(0, 40_000)
    assert len(pair.exchange()) == 35


def test_the_oldest_request_is_served_first() -> None:
    pair = Pair({WINDOW: 2**31 - 1}, step=0)
    for slot in range(3):
        pair.ask(bytes(60_000), slot=slot)
    pair.exchange()
    assert pair.whole == [1]
    pair.server.give(0, 60_000)
    pair.exchange()
    assert pair.whole == [1, 3]


def test_a_request_that_waits_for_its_own_window_holds_up_no_other() -> None:
    pair = Pair({WINDOW: 1000}, step=0)
    pair.ask(bytes(2000))
    pair.ask(b"small", slot=1)
    assert pair.exchange() == [3]


def test_windows_that_come_together_are_used_together() -> None:
    pair = Pair({WINDOW: 0}, step=0)
    pair.ask(bytes(1000))
    pair.exchange()
    for _ in range(10):
        pair.server.give(1, 101)
    assert pair.exchange() == [1]
    assert pair.server.largest_piece == 1005


def test_windows_that_grow_let_go_on_what_waits() -> None:
    pair = Pair({WINDOW: 10}, step=0)
    pair.ask(pattern_of(500))
    assert not pair.exchange()
    pair.server.h2.update_settings({WINDOW: 1000})
    assert pair.exchange() == [1]
    assert pair.server.asked[1].body == message_of(pattern_of(500))


def test_windows_may_shrink_below_nothing() -> None:
    pair = Pair({WINDOW: 300}, step=0)
    pair.ask(pattern_of(500))
    pair.exchange()
    assert len(pair.server.asked[1].body) == 300
    pair.server.h2.update_settings({WINDOW: 100})
    pair.exchange()
    # It is 200 below nothing now.
    pair.server.give(1, 200)
    pair.exchange()
    assert len(pair.server.asked[1].body) == 300
    pair.server.give(1, 1)
    pair.exchange()
    assert len(pair.server.asked[1].body) == 301
    pair.server.give(1, 1000)
    assert pair.exchange() == [1]
    assert pair.server.asked[1].body == message_of(pattern_of(500))
    pair.ask(bytes(95), slot=1)
    pair.ask(bytes(96), slot=2)
    assert pair.exchange() == [3]


def test_windows_may_change_while_nothing_waits() -> None:
    pair = Pair({WINDOW: 1000})
    pair.ask(bytes(100))
    pair.exchange()
    pair.server.h2.update_settings({WINDOW: 50})
    pair.exchange()
    pair.ask(bytes(200), slot=1)
    pair.exchange()
    assert pair.whole == [1, 3]


@pytest.mark.parametrize("largest", [16_384, 20_000, 2**24 - 1])
def test_no_frame_is_larger_than_the_server_takes(largest: int) -> None:
    pair = Pair({FRAME: largest, WINDOW: 2**31 - 1}, step=0)
    pair.server.give(0, 2**30)
    pair.exchange()
    pair.ask(pattern_of(100_000))
    assert pair.exchange() == [1]
    assert pair.server.largest_piece == min(largest, 100_005)


def test_the_largest_frame_may_change_midway() -> None:
    pair = Pair({WINDOW: 2**31 - 1, FRAME: 30_000}, step=0)
    pair.ask(pattern_of(200_000))
    pair.exchange()
    assert pair.server.largest_piece == 30_000
    pair.server.h2.update_settings({FRAME: 16_384})
    pair.exchange()
    pair.server.largest_piece = 0
    pair.server.give(0, 2**30)
    assert pair.exchange() == [1]
    assert pair.server.largest_piece == 16_384
    assert pair.server.asked[1].body == message_of(pattern_of(200_000))


def test_megabytes_go_both_ways() -> None:
    pair = Pair()
    for slot in range(2):
        pair.ask(pattern_of(5_000_000 + slot), slot=slot, validates=True)
    pair.exchange()
    assert sorted(pair.whole) == [1, 3]
    for slot, number in enumerate((1, 3)):
        assert pair.server.asked[number].body == message_of(pattern_of(5_000_000 + slot))
        pair.server.answer(number, pattern_of(4_500_000 + slot))
    pair.exchange()
    assert sorted(outcomes(pair.client)) == [
        (slot, 4_500_005 + slot, None, message_of(pattern_of(4_500_000 + slot))) for slot in range(2)
    ]


def test_the_window_that_it_gives_is_renewed_before_it_is_used_up() -> None:
    """In frames of 16 MB, of which the content does not matter; the pattern's way of counting is not another."""
    connection = known(streams=3)
    connection.receive(raw_answer(1, b"answer") + raw_answer(3, b"answer"))
    counted = 2 * 11
    frame = frames.HEAD.pack(0xFF, 0xFFFF, frames.DATA, 0, 5) + bytes(2**24 - 1)
    given = []
    for _ in range(150):
        connection.receive(frame)
        counted += 2**24 - 1
        for piece in connection.out:
            assert bytes(piece[:9]) == frames.window_update(0, 1)[:9]
            given.append(int.from_bytes(piece[9:], "big"))
        connection.out.clear()
        # What the peer has left, of 2^31 - 1.
        assert 2**30 - 2**25 < 2**31 - 1 - counted + sum(given) <= 2**31 - 1
    assert len(given) == 2


def test_padding_counts() -> None:
    connection = known(streams=1)
    connection.receive(frames.frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(300)))
    assert connection._unrenewed == 301


def test_what_comes_for_no_request_counts_too() -> None:
    connection = known(streams=1)
    connection.cancel(connection.streams[1], "CANCELLED: enough")
    connection.receive(frames.frame(frames.DATA, 0, 1, bytes(300)))
    assert connection._unrenewed == 300


ROOM = known().window
MOST = frames.LARGEST_WINDOW - ROOM


@pytest.mark.parametrize(("increment", "taken"), [(1, 1), (MOST, MOST), (0, 0), (MOST + 1, 0), (1 << 31 | 1, 0)])
def test_the_window_of_the_connection_is_refilled_at_a_glance(increment: int, taken: int) -> None:
    """What is out of the ordinary is for the parser."""
    connection = known()
    data = b"before" + frames.window_update(0, increment) + b"behind"
    assert connection.take_update(data, 6) == (6 + 13 if taken else 6)
    assert connection.window == ROOM + taken


def test_nothing_else_is_taken_for_a_refill() -> None:
    connection = known()
    whole = frames.window_update(0, 7)
    others = [whole[:end] for end in range(len(whole))]
    others += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(9)]
    assert [connection.take_update(data, 0) for data in others] == [0] * (13 + 9)
    assert connection.window == ROOM
