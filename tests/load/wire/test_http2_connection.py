from __future__ import annotations

import h2.events
import pytest
from h2.settings import SettingCodes
from support.connections import SETTINGS, Pair, framed_of, known, outcomes, raw_answer
from support.http2_server_side import message_of

from tuner.load.wire import frames
from tuner.load.wire.frames import ProtocolError
from tuner.load.wire.http2_connection import Http2Connection
from tuner.load.wire.stream import Stream

PING = frames.frame(frames.PING, 0, 0, b"abcdefgh")
PING_ACK = frames.frame(frames.PING, frames.ACK, 0, b"abcdefgh")
# With the 5 bytes in front of it, the second is the largest of one frame.
SIZES = [0, 1, 16_379, 16_380, 40_000]


def test_its_first_words_give_all_the_room_there_is() -> None:
    pair = Pair()
    told = pair.server.h2.remote_settings
    assert (told.header_table_size, told.enable_push) == (0, 0)
    assert (told.initial_window_size, told.max_frame_size) == (2**31 - 1, 2**24 - 1)
    assert pair.server.h2.outbound_flow_control_window == 2**31 - 1


def test_settings_are_acknowledged_each_time() -> None:
    pair = Pair()
    assert pair.server.acknowledged == 1
    pair.server.h2.update_settings({SettingCodes.MAX_FRAME_SIZE: 20_000})
    pair.exchange()
    assert pair.server.acknowledged == 2


def test_the_peer_is_known_by_its_settings_only() -> None:
    connection = Http2Connection()
    connection.receive(frames.frame(frames.SETTINGS, frames.ACK, 0))
    assert not connection.peer_is_known
    connection.receive(SETTINGS)
    assert connection.peer_is_known


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n", b"\x15\x03\x01\0\2\2\x46", PING])
def test_who_does_not_begin_with_settings_is_quoted(words: bytes) -> None:
    connection = Http2Connection()
    with pytest.raises(ProtocolError) as raised:
        connection.receive(words)
    assert str(raised.value) == f"its first frame is not SETTINGS: {words!r}"


def test_first_words_may_come_in_pieces() -> None:
    connection = Http2Connection()
    for at in range(9):
        assert not connection.peer_is_known
        connection.receive(SETTINGS[at : at + 1])
    assert connection.peer_is_known


def test_a_ping_is_sent_back_and_the_answer_to_one_is_not() -> None:
    pair = Pair()
    pair.server.h2.ping(b"abcdefgh")
    pair.client.receive(pair.server.take())
    (event,) = pair.server.h2.receive_data(b"".join(pair.client.out))
    assert isinstance(event, h2.events.PingAckReceived)
    assert event.ping_data == b"abcdefgh"
    connection = known()
    connection.receive(PING_ACK)
    assert not connection.out


@pytest.mark.parametrize("size", SIZES)
def test_a_request_arrives_whole_and_so_does_its_answer(size: int) -> None:
    pair = Pair()
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    pair.ask(content, slot=3, validates=True)
    assert pair.exchange() == [1]
    asked = pair.server.asked[1]
    assert asked.body == message_of(content)
    assert asked.headers[":path"] == "/inference.GRPCInferenceService/ModelInfer"
    assert (asked.headers[":method"], asked.headers["te"]) == ("POST", "trailers")
    pair.server.answer(1, content[::-1])
    pair.exchange()
    assert outcomes(pair.client) == [(3, size + 5, None, message_of(content[::-1]))]
    assert not pair.client.streams


@pytest.mark.parametrize("size", SIZES)
def test_a_stream_takes_the_next_request_of_its_slot(size: int) -> None:
    """The last answers of six are known at a glance."""
    pair = Pair()
    stream = pair.ask(b"first")
    for number in range(1, 12, 2):
        assert pair.exchange() == [number]
        pair.server.answer(number, b"answer")
        pair.exchange()
        assert outcomes(pair.client) == [(0, 11, None, None)]
        stream.renew(framed_of(bytes(size)), 7)
        pair.client.send(stream)
    assert pair.exchange() == [13]
    assert pair.server.asked[13].body == message_of(bytes(size))


def test_a_stream_keeps_the_next_answer_where_somebody_looks_at_it() -> None:
    pair = Pair()
    stream = pair.ask()
    kept = False
    for validates in (False, False, True, False, True, True, False):
        (number,) = pair.exchange()
        pair.server.answer(number, b"answer")
        pair.exchange()
        assert outcomes(pair.client) == [(0, 11, None, message_of(b"answer") if kept else None)]
        stream.renew(framed_of(validates=validates), 7)
        pair.client.send(stream)
        kept = validates


def test_requests_under_way_are_kept_in_the_order_in_which_they_were_sent() -> None:
    connection = known(streams=5)
    assert list(connection.streams) == [1, 3, 5, 7, 9]
    assert [stream.slot for stream in connection.streams.values()] == [0, 1, 2, 3, 4]
    assert [stream.number for stream in connection.streams.values()] == [1, 3, 5, 7, 9]


def at_ease(connection: Http2Connection) -> bool:
    return connection.at_ease is not None


def has_room(connection: Http2Connection) -> bool:
    return connection.has_room


def test_it_is_at_ease_only_while_nothing_else_goes_on() -> None:
    connection = known(streams=5)
    assert not at_ease(connection)
    connection.receive(raw_answer(7, b"answer"))
    assert not at_ease(connection)
    connection.receive(raw_answer(1, b"answer"))
    assert at_ease(connection)
    connection.receive(PING)
    assert not at_ease(connection)
    connection.out.clear()
    assert at_ease(connection)
    answer = raw_answer(3, b"answer")
    for half in (answer[:5], answer[5:40], answer[40:-1]):
        connection.receive(half)
        assert not at_ease(connection)
    connection.receive(answer[-1:])
    assert at_ease(connection)
    connection.send(Stream(framed_of(bytes(100_000)), 9, 0))
    connection.out.clear()
    assert not at_ease(connection)


def test_it_is_not_at_ease_with_more_under_way_than_the_peer_takes() -> None:
    connection = known(streams=5)
    connection.receive(raw_answer(1, b"answer") + raw_answer(3, b"answer"))
    assert at_ease(connection)
    connection.receive(frames.settings({frames.MAX_CONCURRENT_STREAMS: 2}))
    connection.out.clear()
    assert not at_ease(connection)
    connection.receive(raw_answer(5, b"answer"))
    assert at_ease(connection)


def test_it_is_not_at_ease_where_a_small_request_may_have_no_room_in_its_stream() -> None:
    connection = known(streams=3)
    connection.receive(raw_answer(1, b"answer") + raw_answer(3, b"answer"))
    for window, is_at_ease in ((16_383, False), (16_384, True)):
        connection.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: window}))
        connection.out.clear()
        assert at_ease(connection) == is_at_ease


def test_it_is_not_at_ease_where_the_numbers_of_streams_run_out() -> None:
    for left in (100_000, 10_000):
        first = 2**31 - 1 - 2 * left
        connection = known(streams=3, first_stream=first)
        connection.receive(raw_answer(first, b"answer") + raw_answer(first + 2, b"answer"))
        assert at_ease(connection) == (left == 100_000)


def test_there_is_room_for_as_many_requests_as_the_peer_takes() -> None:
    pair = Pair({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    pair.ask()
    assert has_room(pair.client)
    pair.ask()
    assert not has_room(pair.client)
    pair.exchange()
    pair.server.answer(3)
    pair.exchange()
    assert has_room(pair.client)
    pair.server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    pair.exchange()
    assert not has_room(pair.client)
