from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.connections import block_of, known, outcomes, raw_answer, send_requests
from support.http2_server_side import GOOD_HEADERS, GOOD_TRAILERS

from tuner.load.wire.frames import ProtocolError
from tuner.load.wire.http2_connection import Http2Connection
from tuner.load.wire.pattern import Pattern
from tuner.load.wire.stream import Stream

ANSWER = raw_answer(0x01020305, b"content")
CONTENT = range(9 + len(block_of(GOOD_HEADERS)) + 9 + 5, len(ANSWER) - 9 - len(block_of(GOOD_TRAILERS)))
PATTERN = Pattern(block_of(GOOD_HEADERS), 12, block_of(GOOD_TRAILERS))


def test_it_tells_whose_answer_it_is() -> None:
    assert (PATTERN.size, PATTERN.total) == (12, len(ANSWER))
    for data, at in ((ANSWER, 0), (b"before" + ANSWER + b"behind", 6)):
        found = PATTERN.match(data, at)
        assert found
        assert found[1] == b"\1\2\3\5"


def test_only_the_content_may_differ() -> None:
    for at in range(len(ANSWER)):
        other = bytearray(ANSWER)
        other[at] ^= 1
        assert (PATTERN.match(bytes(other), 0) is not None) == (at in CONTENT)


def test_an_answer_that_is_not_all_there_does_not_fit() -> None:
    for end in range(len(ANSWER)):
        assert not PATTERN.match(ANSWER[:end], 0)
    assert not PATTERN.match(ANSWER, 1)


class Forgetful(Http2Connection):
    """Has no pattern."""

    def _learn(self, stream: Stream, trailers: bytes) -> None:
        pass


def told(connection: Http2Connection, pieces: list[bytes]) -> object:
    """All that shows of what a connection made of some bytes."""
    error = None
    try:
        for piece in pieces:
            connection.receive(piece)
    except ProtocolError as raised:
        error = str(raised)
    return outcomes(connection), error, b"".join(connection.out), list(connection.streams), connection._unrenewed


COUNT = 6
GOOD = [raw_answer(number, b"content") for number in range(1, 2 * COUNT, 2)]


@st.composite
def nearly_good(draw: st.DrawFn) -> list[bytes]:
    """Good answers in some order, of which a byte is another, missing, or too many; in one piece or two."""
    answers = draw(st.permutations(GOOD))
    whole = bytearray(b"".join(answers))
    at = draw(st.integers(0, len(whole) - 1))
    how = draw(st.sampled_from(["other", "missing", "more", "again"]))
    if how == "other":
        whole[at] = draw(st.integers(0, 255))
    elif how == "missing":
        del whole[at]
    elif how == "more":
        whole.insert(at, draw(st.integers(0, 255)))
    else:
        whole[at:at] = draw(st.sampled_from(GOOD))
    cut = draw(st.integers(0, len(whole)))
    return [bytes(whole[:cut]), bytes(whole[cut:])]


@given(nearly_good())
def test_it_makes_nothing_of_what_the_parser_would_not(pieces: list[bytes]) -> None:
    quick, slow = Http2Connection(), Forgetful()
    for connection in (quick, slow):
        send_requests(connection, COUNT + 2)
        for number in (2 * COUNT + 1, 2 * COUNT + 3):
            connection.receive(raw_answer(number, b"content"))
    assert quick._pattern
    assert not slow._pattern
    assert told(quick, pieces) == told(slow, pieces)


def test_it_is_of_two_answers_in_a_row_that_are_alike() -> None:
    connection = known(streams=10)
    patterns = []
    for number, content in enumerate([b"a", b"ab", b"a", b"ab", b"ab", b"a", b"abc", b"abc"]):
        connection.receive(raw_answer(2 * number + 1, content))
        patterns.append(connection._pattern and connection._pattern.size - 5)
    assert patterns == [None, None, None, None, 2, 2, 2, 3]


def test_large_answers_have_none() -> None:
    """They come in several frames."""
    connection = known(streams=3)
    for number in (1, 3):
        connection.receive(raw_answer(number, bytes(16_380)))
    assert connection._pattern is None


@given(st.lists(st.binary(max_size=2), min_size=1, max_size=12))
def test_it_changes_with_the_answers(contents: list[bytes]) -> None:
    connection = Http2Connection()
    send_requests(connection, len(contents))
    connection.receive(b"".join(raw_answer(2 * at + 1, content) for at, content in enumerate(contents)))
    assert [(slot, received) for slot, received, _, _ in outcomes(connection)] == [
        (slot, 5 + len(content)) for slot, content in enumerate(contents)
    ]
