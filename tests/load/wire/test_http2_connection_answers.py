from __future__ import annotations

import pytest
from support.connections import Outcome, Pair, block_of, framed_of, known, outcomes, raw_answer
from support.http2_server_side import GOOD_HEADERS, GOOD_TRAILERS, message_of

from tuner.load.wire import frames
from tuner.load.wire.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    ProtocolError,
)
from tuner.load.wire.stream import Stream

BEGIN, END = block_of(GOOD_HEADERS), block_of(GOOD_TRAILERS)
PRIORITY = b"\0\0\0\3\x10"
WELL = [Outcome(0, 9, None, None)]


def headers(stream: int, block: bytes, flags: int = END_HEADERS) -> bytes:
    return frames.frame(HEADERS, flags, stream, block)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frames.frame(DATA, flags, stream, payload)


def ends(stream: int, block: bytes = END) -> bytes:
    return headers(stream, block, END_HEADERS | END_STREAM)


def begins(stream: int) -> bytes:
    return headers(stream, BEGIN)


def stream_of_answers() -> bytes:
    """Of five streams: alike and unlike, mixed, padded, with other frames in between."""
    return b"".join(
        [
            raw_answer(1, b"abcd"),
            raw_answer(5, b"abcd"),
            frames.window_update(0, 1000),
            raw_answer(3, b"efgh"),
            frames.frame(frames.PING, 0, 0, b"12345678"),
            begins(7),
            data(7, b"\0\0\0\0\4ab"),
            begins(9),
            data(9, message_of(b"")),
            data(7, b"\3cd\0\0\0", PADDED),
            frames.settings({frames.MAX_FRAME_SIZE: 20_000}),
            ends(9),
            frames.window_update(7, 5),
            ends(7),
        ]
    )


ANSWERS = [(0, 9), (2, 9), (1, 9), (4, 5), (3, 9)]


@pytest.mark.parametrize("between", [0, 7])
def test_answers_may_be_cut_at_every_byte(between: int) -> None:
    whole = stream_of_answers()
    for at in range(len(whole)):
        connection = known(streams=5)
        for piece in (whole[:at], whole[at : at + between], whole[at + between :]):
            connection.receive(piece)
        assert [(slot, received) for slot, received, error, _ in outcomes(connection) if not error] == ANSWERS
        # The PING's answer, and the settings'.
        assert len(connection.out) == 2


def test_answers_may_come_byte_by_byte() -> None:
    connection = known(streams=5)
    for byte in stream_of_answers():
        connection.receive(bytes([byte]))
    assert [(slot, received) for slot, received, error, _ in outcomes(connection) if not error] == ANSWERS


def test_an_answer_that_is_kept_is_the_same_however_it_is_cut() -> None:
    content = bytes(range(256))
    pieces = begins(1) + data(1, message_of(content)[:100]) + data(1, message_of(content)[100:]) + ends(1)
    for size in (1, 2, 3, 50, 1000):
        connection = known()
        connection.send(Stream(framed_of(validates=True), 0, 0))
        for at in range(0, len(pieces), size):
            connection.receive(pieces[at : at + size])
        assert outcomes(connection) == [(0, 261, None, message_of(content))]


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_is_no_part_of_an_answer(padding: int) -> None:
    pair = Pair()
    pair.ask(validates=True)
    (number,) = pair.exchange()
    pair.server.begin(number)
    pair.server.send(number, message_of(b"abcd"), padding=padding)
    pair.server.end(number)
    pair.exchange()
    assert outcomes(pair.client) == [(0, 9, None, message_of(b"abcd"))]


def test_a_padded_frame_may_be_as_large_as_any() -> None:
    connection = known(streams=1)
    content = bytes(3_000_000)
    whole = begins(1) + data(1, b"\7" + message_of(content) + bytes(7), PADDED) + ends(1)
    for at in range(0, len(whole), 500_000):
        connection.receive(whole[at : at + 500_000])
    assert outcomes(connection) == [(0, len(content) + 5, None, None)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_header_blocks_may_come_in_several_frames(size: int) -> None:
    connection = known(streams=1)
    whole = b""
    for block, flags in ((BEGIN, 0), (END, END_STREAM)):
        pieces = [block[at : at + size] for at in range(0, len(block), size)]
        whole += headers(1, pieces[0], flags | END_HEADERS * (len(pieces) == 1))
        for number, piece in enumerate(pieces[1:], 2):
            whole += frames.frame(CONTINUATION, END_HEADERS * (number == len(pieces)), 1, piece)
        if not flags:
            whole += data(1, message_of(b"abcd"))
    for cut in range(0, len(whole), 3):
        connection.receive(whole[cut : cut + 3])
    assert outcomes(connection) == WELL


@pytest.mark.parametrize(
    ("flags", "before", "after"),
    [(PADDED, b"\3", b"\0\0\0"), (HAS_PRIORITY, PRIORITY, b""), (PADDED | HAS_PRIORITY, b"\1" + PRIORITY, b"\0")],
)
def test_headers_may_be_padded_and_have_a_priority(flags: int, before: bytes, after: bytes) -> None:
    connection = known(streams=1)
    connection.receive(headers(1, before + BEGIN + after, END_HEADERS | flags))
    connection.receive(data(1, message_of(b"abcd")))
    connection.receive(headers(1, before + END + after, END_HEADERS | END_STREAM | flags))
    assert outcomes(connection) == WELL


@pytest.mark.parametrize(
    "frame",
    [
        frames.frame(frames.PRIORITY, 0, 1, PRIORITY),
        frames.frame(0x10, 0, 0, b"\0\0\0\1u=0"),
        frames.frame(0xFF, 0xFF, 1, bytes(5000)),
        data(1, b""),
        data(1, b"\0", PADDED),
        headers(1, block_of([(":status", "103"), ("link", "</x>")])),
    ],
    ids=["priority", "priority update", "unknown", "empty", "only padding", "informational"],
)
def test_what_says_nothing_changes_nothing(frame: bytes) -> None:
    first, second, third = begins(1), data(1, message_of(b"abcd")), ends(1)
    for whole in (frame + first + second + third, first + frame + second + third, first + second + frame + third):
        connection = known(streams=1)
        connection.receive(whole)
        assert outcomes(connection) == WELL


def test_reserved_bits_are_ignored() -> None:
    reserved = 1 << 31
    connection = known(streams=1)
    connection.receive(begins(reserved | 1) + data(reserved | 1, message_of(b"abcd")) + ends(reserved | 1))
    assert outcomes(connection) == WELL


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "INTERNAL: the answer has 0 of 5 bytes"),
        (b"\0\0\0", "INTERNAL: the answer has 3 of 5 bytes"),
        (b"\0\0\0\0\4abc", "INTERNAL: the answer has 8 of 9 bytes"),
        (b"\0\0\0\0\4abcde", "INTERNAL: the answer has 10 of 9 bytes"),
        (message_of(b"abcd") * 2, "INTERNAL: the answer has 18 of 9 bytes"),
        (
            message_of(b"abcd", compressed=True),
            "INTERNAL: the answer is compressed, though compression was not requested",
        ),
    ],
    ids=["none", "not a prefix", "short", "long", "two", "compressed"],
)
def test_a_good_status_does_not_excuse_a_wrong_message(content: bytes, error: str) -> None:
    for size in (1, 4, 100):
        connection = known(streams=1)
        pieces = [data(1, content[at : at + size]) for at in range(0, len(content), size)]
        connection.receive(begins(1) + b"".join(pieces) + ends(1))
        assert [outcome.error for outcome in outcomes(connection)] == [error]


def test_an_answer_may_be_nothing_but_a_status() -> None:
    pair = Pair()
    pair.ask()
    pair.ask(slot=1)
    pair.server.fail(pair.exchange()[0], 5, "no such model")
    pair.server.fail(3, 0, "")
    pair.exchange()
    assert [outcome.error for outcome in outcomes(pair.client)] == [
        "NOT_FOUND: no such model",
        "INTERNAL: the answer has 0 of 5 bytes",
    ]


@pytest.mark.parametrize("whole", [data(1, message_of(b""), END_STREAM), ends(1, BEGIN), data(1, b"", END_STREAM)])
def test_a_stream_that_ends_without_a_status_has_failed(whole: bytes) -> None:
    connection = known(streams=1)
    connection.receive(begins(1) + whole)
    assert [outcome.error for outcome in outcomes(connection)] == [
        "INTERNAL: the server ended the stream without a gRPC status"
    ]


def test_an_error_that_does_not_end_its_stream_is_the_end_of_it_for_us() -> None:
    connection = known(streams=1)
    connection.receive(headers(1, block_of([(":status", "503"), ("content-type", "text/html")])))
    assert [outcome.error for outcome in outcomes(connection)] == [
        "UNAVAILABLE: the server answered with HTTP status 503"
    ]
    assert connection.out == [frames.reset(1, frames.CANCEL)]
    connection.receive(data(1, b"<html>") + data(1, b"</html>", END_STREAM))
    assert not connection.finished


def test_a_bad_status_after_thousands_of_good_ones_is_not_missed() -> None:
    connection = known(streams=1)
    for number in range(5000):
        (stream,) = connection.streams.values()
        bad = number % 1000 == 999
        # Of the same size as the good ones.
        trailers = [("grpc-status", "3"), ("grpc-message", "")] if bad else GOOD_TRAILERS
        connection.receive(raw_answer(stream.number, b"abcd", trailers=trailers))
        assert [outcome.error for outcome in outcomes(connection)] == ["INVALID_ARGUMENT: no details" if bad else None]
        stream.renew(framed_of(), 0)
        connection.send(stream)


def test_what_comes_for_a_request_that_was_cancelled_is_ignored() -> None:
    connection = known(streams=2)
    connection.receive(begins(1))
    connection.cancel(connection.streams[1], "CANCELLED: enough")
    assert connection.out == [frames.reset(1, frames.CANCEL)]
    connection.receive(data(1, message_of(b"abcd")) + ends(1) + raw_answer(3, b"abcd"))
    assert outcomes(connection) == [(0, 0, "CANCELLED: enough", None), (1, 9, None, None)]


@pytest.mark.parametrize("flags", [0, END_STREAM])
def test_the_rest_of_a_frame_is_not_counted_for_the_next_request_of_its_slot(flags: int) -> None:
    connection = known(streams=1)
    frame = data(1, message_of(b"abcd"), flags)
    connection.receive(begins(1) + frame[:-3])
    stream = connection.streams[1]
    connection.cancel(stream, "DEADLINE_EXCEEDED: too late")
    connection.finished.clear()
    stream.renew(framed_of(), 0)
    connection.send(stream)
    connection.receive(frame[-3:])
    assert (stream.received, stream.prefix) == (0, b"")
    connection.receive(raw_answer(3, b"abcd"))
    assert outcomes(connection) == WELL


def test_an_answer_before_the_end_of_its_request_ends_both() -> None:
    """The last could be known at a glance."""
    pair = Pair(step=0)
    for number in (1, 3, 5, 7):
        pair.ask(bytes(100_000 if number == 7 else 10))
        pair.exchange()
        pair.server.answer(number, b"abcd")
        pair.client.receive(pair.server.take())
        assert outcomes(pair.client) == WELL
    assert pair.client._pattern
    assert pair.client.out == [frames.reset(7, frames.CANCEL)]
    pair.client.receive(frames.window_update(0, 1_000_000))
    assert len(pair.client.out) == 1


def test_what_has_come_of_an_answer_before_is_part_of_it() -> None:
    """Though the rest looks like a whole one."""
    connection = known(streams=3)
    connection.receive(raw_answer(1, b"abcd") + raw_answer(3, b"abcd"))
    connection.receive(begins(5) + data(5, message_of(b"abcd")))
    connection.receive(raw_answer(5, b"abcd"))
    assert [error for _, _, error, _ in outcomes(connection)] == [
        None,
        None,
        "INTERNAL: the answer has 18 of 9 bytes",
    ]


WRONG = {
    "push": frames.frame(frames.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + BEGIN),
    "data of no stream": data(0, b"x"),
    "data of a stream never opened": data(9, b"x"),
    "data of a stream of the server's": data(2, b"x"),
    "headers of no stream": begins(0),
    "headers of a stream never opened": begins(9),
    "reset of no stream": frames.reset(0, 8),
    "reset of a stream never opened": frames.reset(9, 8),
    "short reset": frames.frame(frames.RST_STREAM, 0, 1, b"abc"),
    "window of a stream never opened": frames.window_update(9, 1),
    "window by nothing": frames.window_update(0, 0),
    "short window": frames.frame(frames.WINDOW_UPDATE, 0, 0, b"abc"),
    "window beyond all bounds": frames.window_update(0, 2**31 - 1),
    "short settings": frames.frame(frames.SETTINGS, 0, 0, b"abcde"),
    "settings that acknowledge": frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
    "initial window beyond all bounds": frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}),
    "frames too small": frames.settings({frames.MAX_FRAME_SIZE: 16_383}),
    "frames too large": frames.settings({frames.MAX_FRAME_SIZE: 2**24}),
    "short ping": frames.frame(frames.PING, 0, 0, b"abc"),
    "ping of a stream": frames.frame(frames.PING, 0, 1, bytes(8)),
    "short goaway": frames.frame(frames.GOAWAY, 0, 0, bytes(7)),
    "padding without end": data(1, b"\7abc", PADDED),
    "padding without beginning": data(1, b"", PADDED),
    "priority cut short": headers(1, b"\0\0\0", END_HEADERS | HAS_PRIORITY),
    "continuation of nothing": frames.frame(CONTINUATION, END_HEADERS, 1, END),
    "continuation of another": headers(1, BEGIN, 0) + frames.frame(CONTINUATION, END_HEADERS, 3, END),
    "data within a block": headers(1, BEGIN, 0) + data(1, b"abc"),
    "ping within a block": headers(1, BEGIN, 0) + frames.frame(frames.PING, 0, 0, bytes(8)),
    "block that cannot be decoded": headers(1, BEGIN + b"\xff"),
    "block that wants a table": headers(1, b"\xbe"),
    "block that makes a table": headers(1, b"\x3f\xe1\x1f" + BEGIN),
    "block without end": headers(1, bytes(1 << 20), 0) + frames.frame(CONTINUATION, 0, 1, b"x"),
    "large frame": frames.HEAD.pack(0x20, 0, HEADERS, END_HEADERS, 1),
}


@pytest.mark.parametrize("whole", WRONG.values(), ids=WRONG)
def test_what_breaks_the_protocol_is_an_error(whole: bytes) -> None:
    connection = known(streams=2)
    with pytest.raises(ProtocolError):
        connection.receive(whole)
    connection.lose("UNAVAILABLE: lost")
    assert [outcome.error for outcome in outcomes(connection)] == ["UNAVAILABLE: lost"] * 2
