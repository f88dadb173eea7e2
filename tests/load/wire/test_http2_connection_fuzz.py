"""Whatever comes, in whatever pieces: a clean error or none, never a request lost or told of twice."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from support.connections import SETTINGS, block_of, framed_of, raw_answer
from support.http2_server_side import GOOD_HEADERS, GOOD_TRAILERS, message_of

from tuner.load.wire import frames
from tuner.load.wire.frames import END_HEADERS, END_STREAM, ProtocolError
from tuner.load.wire.http2_connection import Http2Connection
from tuner.load.wire.stream import Framed, Stream

FRAMED = [framed_of(b"small"), framed_of(bytes(20_000)), framed_of(b"kept", validates=True)]
BLOCKS = [
    block_of(headers)
    for headers in (
        GOOD_HEADERS,
        GOOD_TRAILERS,
        [(":status", "103")],
        [(":status", "503")],
        [("grpc-status", "13"), ("grpc-message", "no%20way%C3%A4%ff")],
        [("grpc-status", "9" * 5000)],
        [("grpc-status", "-1")],
        [],
    )
]

streams = st.sampled_from([0, 1, 1, 3, 3, 5, 7, 9, 2, 2**31 - 1, 2**31 + 1])
payloads = st.one_of(
    st.sampled_from(
        [*BLOCKS, message_of(b"abcd"), message_of(b""), message_of(b"abcd")[:6], b"\0\0\0\0", b"\2abcd\0\0"]
    ),
    st.integers(0, 2**32 - 1).map(lambda number: number.to_bytes(4, "big")),
    st.tuples(st.integers(0, 7), st.integers(0, 2**32 - 1)).map(lambda pair: frames.settings(dict([pair]))[9:]),
    st.tuples(streams, st.integers(0, 14)).map(lambda pair: b"".join(each.to_bytes(4, "big") for each in pair)),
    st.binary(max_size=40),
)
flags = st.one_of(st.sampled_from([0, END_STREAM, END_HEADERS, END_HEADERS | END_STREAM]), st.integers(0, 255))
ours = st.sampled_from([1, 3, 5, 7])
ending = st.sampled_from([END_HEADERS, END_HEADERS, END_HEADERS | END_STREAM, 0])
frame = st.one_of(
    st.builds(frames.frame, st.integers(0, 10), flags, streams, payloads),
    st.builds(frames.frame, st.just(frames.HEADERS), ending, ours, st.sampled_from(BLOCKS)),
    st.builds(frames.frame, st.just(frames.DATA), st.sampled_from([0, 0, END_STREAM]), ours, payloads),
)
good = st.builds(raw_answer, st.sampled_from([1, 3, 5, 7, 9]), st.sampled_from([b"abcd", b"efgh", b""]))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Frames of which a byte is another."""
    whole = bytearray(draw(st.one_of(frame, good)))
    whole[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    return bytes(whole)


class Checked:
    """A connection, and what was done with it."""

    def __init__(self) -> None:
        self.connection = Http2Connection()
        self.connection.receive(SETTINGS)
        self.submitted: list[Stream] = []
        self.finished: list[Stream] = []
        self.refused: list[Stream] = []

    def send(self, framed: Framed) -> None:
        if self.connection.has_room:
            self.submitted.append(Stream(framed, len(self.submitted), 0))
            self.connection.send(self.submitted[-1])
            self.check()

    def cancel(self, at: int) -> None:
        under_way = list(self.connection.streams.values())
        if under_way:
            self.connection.cancel(under_way[at % len(under_way)], "CANCELLED: enough")
            self.check()

    def again(self) -> None:
        """Send once more what was refused, and the next requests of slots that have ended."""
        while self.refused and self.connection.has_room:
            stream = self.refused.pop()
            stream.begin_anew()
            self.connection.send(stream)
        while self.finished and self.connection.has_room:
            stream = self.finished.pop()
            stream.renew(FRAMED[stream.slot % len(FRAMED)], 0)
            self.connection.send(stream)
        self.check()
        for stream in self.connection.streams.values():
            assert stream.error is None

    def receive(self, data: bytes) -> bool:
        try:
            self.connection.receive(data)
        except ProtocolError:
            return False
        finally:
            self.check()
        return True

    def lose(self) -> None:
        self.connection.lose("UNAVAILABLE: lost")
        self.check()
        assert not self.connection.streams
        assert len(self.finished) + len(self.refused) == len(self.submitted)

    def check(self) -> None:
        """Each request is in one place, and nothing is said of it that cannot be."""
        connection = self.connection
        self.finished += connection.finished
        self.refused += connection.refused
        connection.finished.clear()
        connection.refused.clear()
        seen = Counter(map(id, [*connection.streams.values(), *self.finished, *self.refused]))
        assert seen == Counter(map(id, self.submitted))
        assert all(stream.number == number for number, stream in connection.streams.items())
        assert connection.unsent.keys() <= connection.streams.keys()
        for stream in self.finished:
            # What is known at a glance is as long as its pattern says, and says no more of itself.
            assert stream.error or (stream.received >= 5 and stream.wanted in {5, stream.received})
            assert stream.error or stream.answer is None or len(stream.answer) == stream.received
        connection.out.clear()


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut at these places, counted around."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in pairwise(places)]


@given(st.binary(max_size=300), st.lists(st.integers(0, 1 << 20), max_size=5))
def test_arbitrary_bytes(data: bytes, cuts: list[int]) -> None:
    checked = Checked()
    for framed in FRAMED:
        checked.send(framed)
    for piece in in_pieces(data, cuts):
        if not checked.receive(piece):
            break
    checked.lose()


@given(st.binary(max_size=100))
def test_arbitrary_first_words(data: bytes) -> None:
    connection = Http2Connection()
    try:
        connection.receive(data)
    except ProtocolError:
        assert not connection.peer_is_known


@settings(max_examples=3 * settings().max_examples)
@given(
    st.lists(
        st.one_of(
            st.lists(st.one_of(frame, good, mutated()), min_size=1, max_size=6).map(b"".join),
            st.sampled_from(FRAMED),
            st.integers(0, 5),
            st.none(),
        ),
        max_size=25,
    ),
    st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_arbitrary_frames_while_requests_come_and_go(steps: list[bytes | Framed | int | None], cuts: list[int]) -> None:
    checked = Checked()
    for framed in FRAMED:
        checked.send(framed)
    for step in steps:
        if isinstance(step, Framed):
            checked.send(step)
        elif isinstance(step, int):
            checked.cancel(step)
        elif step is None:
            checked.again()
        elif not all(checked.receive(piece) for piece in in_pieces(step, cuts)):
            break
    checked.lose()


@given(st.lists(st.one_of(frame, good), min_size=1, max_size=12), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_how_it_is_cut_changes_nothing(steps: list[bytes], cuts: list[int]) -> None:
    told = []
    for pieces in (steps, in_pieces(b"".join(steps), cuts), [bytes([byte]) for byte in b"".join(steps)]):
        checked = Checked()
        for framed in (FRAMED[0], FRAMED[2]) * 3:
            checked.send(framed)
        well = all(checked.receive(piece) for piece in pieces)
        checked.lose()
        told.append((well, [(stream.slot, stream.error, stream.received) for stream in checked.finished]))
    assert told[0] == told[1] == told[2]
