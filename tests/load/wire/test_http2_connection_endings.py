from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from support.connections import Pair, framed_of, known, outcomes, raw_answer
from support.http2_server_side import message_of

from tuner.load.wire import frames
from tuner.load.wire.http2_connection import Http2Connection
from tuner.load.wire.stream import Stream

CODES = {
    ErrorCodes.CANCEL: "CANCELLED",
    ErrorCodes.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
    ErrorCodes.INADEQUATE_SECURITY: "PERMISSION_DENIED",
}


def refused(connection: Http2Connection) -> list[int]:
    """The slots of what may be sent again."""
    slots = [stream.slot for stream in connection.refused]
    connection.refused.clear()
    return slots


def goaway(last: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> bytes:
    return frames.frame(frames.GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + b"bye")


@pytest.mark.parametrize("code", sorted(set(ErrorCodes) - {ErrorCodes.REFUSED_STREAM}))
def test_a_reset_ends_a_request_with_an_error_of_its_own(code: ErrorCodes) -> None:
    pair = Pair()
    pair.ask()
    pair.exchange()
    pair.server.begin(1)
    pair.server.send(1, message_of(b"abcd"))
    pair.server.h2.reset_stream(1, code)
    pair.exchange()
    assert [outcome.error for outcome in outcomes(pair.client)] == [
        f"{CODES.get(code, 'INTERNAL')}: the server reset the stream ({code.name})"
    ]
    assert not pair.client.closing


def test_a_reset_with_a_code_that_nobody_knows() -> None:
    connection = known(streams=1)
    connection.receive(frames.reset(1, 77))
    assert [outcome.error for outcome in outcomes(connection)] == ["INTERNAL: the server reset the stream (error 77)"]


def test_nothing_more_is_sent_on_a_stream_that_was_reset() -> None:
    pair = Pair(step=0)
    pair.ask(bytes(100_000))
    pair.exchange()
    sent = len(pair.server.asked[1].body)
    pair.server.h2.reset_stream(1, ErrorCodes.INTERNAL_ERROR)
    pair.server.give(0, 1_000_000)
    pair.exchange()
    assert len(pair.server.asked[1].body) == sent
    assert pair.server.asked[1].reset is None
    pair.ask(b"next", slot=1)
    assert pair.exchange() == [3]


def test_a_reset_of_what_has_ended_is_ignored() -> None:
    connection = known(streams=1)
    connection.receive(raw_answer(1, b"abcd") + frames.reset(1, 0))
    assert [outcome.error for outcome in outcomes(connection)] == [None]


def test_a_refused_request_may_be_sent_again_but_not_without_end() -> None:
    pair = Pair()
    stream = pair.ask(bytes(100_000), validates=True)
    for number in (1, 3):
        assert pair.exchange() == [number]
        pair.server.h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
        pair.exchange()
        assert pair.client.refused == [stream]
        assert not pair.client.finished
        assert not pair.client.streams
        pair.client.refused.clear()
        stream.begin_anew()
        pair.client.send(stream)
    assert pair.exchange() == [5]
    pair.server.h2.reset_stream(5, ErrorCodes.REFUSED_STREAM)
    pair.exchange()
    assert not pair.client.refused
    assert [outcome.error for outcome in outcomes(pair.client)] == [
        "UNAVAILABLE: the server reset the stream (REFUSED_STREAM)"
    ]


def test_how_often_a_request_was_sent_is_not_counted_against_the_next_of_its_slot() -> None:
    connection = known(streams=1)
    (stream,) = connection.streams.values()
    for _ in range(10):
        for again in range(2):
            connection.receive(frames.reset(stream.number, frames.REFUSED_STREAM))
            assert refused(connection) == [0], again
            stream.begin_anew()
            connection.send(stream)
        connection.receive(raw_answer(stream.number, b"abcd"))
        assert [outcome.error for outcome in outcomes(connection)] == [None]
        stream.renew(framed_of(), 0)
        connection.send(stream)


def test_what_was_refused_in_the_middle_is_sent_again_whole() -> None:
    pair = Pair(step=0)
    stream = pair.ask(bytes(100_000))
    assert not pair.exchange()
    pair.server.h2.reset_stream(1, ErrorCodes.REFUSED_STREAM)
    pair.exchange()
    other = Pair()
    stream.begin_anew()
    other.client.send(stream)
    assert other.exchange() == [1]
    assert other.server.asked[1].body == message_of(bytes(100_000))


def test_a_server_that_goes_away_answers_what_it_has_taken_and_the_rest_may_go_elsewhere() -> None:
    pair = Pair()
    for slot in range(4):
        pair.ask(slot=slot)
    pair.exchange()
    pair.client.receive(goaway(3))
    assert pair.client.closing
    assert not pair.client.has_room
    assert refused(pair.client) == [2, 3]
    pair.server.answer(3, b"abcd")
    pair.server.answer(1, b"abcd")
    pair.client.receive(pair.server.take())
    assert [(slot, error) for slot, _, error, _ in outcomes(pair.client)] == [(1, None), (0, None)]
    assert not pair.client.streams


def test_a_server_may_go_away_in_two_steps() -> None:
    connection = known(streams=3)
    connection.receive(goaway(2**31 - 1))
    assert connection.closing
    assert not connection.refused
    connection.receive(raw_answer(1, b"abcd") + goaway(3))
    assert [outcome.slot for outcome in outcomes(connection)] == [0]
    assert refused(connection) == [2]
    connection.receive(raw_answer(3, b"abcd"))
    assert [outcome.error for outcome in outcomes(connection)] == [None]


def test_who_is_sent_away_again_and_again_has_failed() -> None:
    (stream,) = known(streams=1).streams.values()
    for again in range(2):
        connection = known()
        stream.begin_anew()
        connection.send(stream)
        connection.receive(goaway(0, ErrorCodes.ENHANCE_YOUR_CALM))
        assert refused(connection) == [0], again
    connection = known()
    connection.send(stream)
    connection.receive(goaway(0, ErrorCodes.ENHANCE_YOUR_CALM))
    assert [outcome.error for outcome in outcomes(connection)] == [
        "UNAVAILABLE: the server is going away (GOAWAY ENHANCE_YOUR_CALM)"
    ]


def test_requests_that_are_half_sent_when_the_server_goes_away_are_completed_or_refused() -> None:
    pair = Pair(step=0)
    for slot in range(2):
        pair.ask(bytes(40_000), slot=slot)
    pair.exchange()
    pair.client.receive(goaway(1))
    assert refused(pair.client) == [1]
    pair.server.give(0, 100_000)
    pair.exchange()
    assert pair.whole == [1]
    assert not pair.server.asked[3].ended


def test_it_closes_when_the_numbers_of_streams_run_out() -> None:
    connection = known(first_stream=2**31 - 5)
    numbers = []
    for slot in range(3):
        assert connection.has_room == (slot < 3)
        connection.send(Stream(framed_of(), slot, 0))
        numbers.append(max(connection.streams))
    assert numbers == [2**31 - 5, 2**31 - 3, 2**31 - 1]
    assert connection.closing
    for slot, number in enumerate(numbers):
        connection.receive(raw_answer(number, b"abcd"))
        assert [(outcome.slot, outcome.error) for outcome in outcomes(connection)] == [(slot, None)]


def test_a_connection_that_is_lost_ends_all_that_was_under_way() -> None:
    connection = known(streams=3)
    connection.send(Stream(framed_of(bytes(100_000)), 3, 0))
    connection.receive(raw_answer(3, b"abcd"))
    connection.lose("UNAVAILABLE: lost")
    assert [(slot, error) for slot, _, error, _ in outcomes(connection)] == [
        (1, None),
        (0, "UNAVAILABLE: lost"),
        (2, "UNAVAILABLE: lost"),
        (3, "UNAVAILABLE: lost"),
    ]
    assert connection.closing
    connection.lose("UNAVAILABLE: again")
    assert not connection.finished


def test_a_request_may_be_cancelled_before_it_was_sent_whole() -> None:
    pair = Pair(step=0)
    stream = pair.ask(bytes(100_000))
    pair.exchange()
    pair.client.cancel(stream, "CANCELLED: enough")
    pair.exchange()
    assert pair.server.asked[1].reset is ErrorCodes.CANCEL
    pair.server.give(0, 100_000)
    pair.exchange()
    assert [outcome.error for outcome in outcomes(pair.client)] == ["CANCELLED: enough"]
