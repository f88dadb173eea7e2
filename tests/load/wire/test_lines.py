from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from support.connections import framed_of, raw_answer
from support.http2_peer import Http2Peer, Talk, echo, keep_silent
from support.socket_peer import reset

from tuner.load.wire import frames
from tuner.load.wire.lines import Lines
from tuner.load.wire.stream import Stream
from tuner.load.workload import Plan

MOST_STREAMS = SettingCodes.MAX_CONCURRENT_STREAMS
PING = frames.frame(frames.PING, 0, 0, b"abcdefgh")


@contextmanager
def lines_of(plan: Plan) -> Iterator[Lines]:
    lines = Lines(plan)
    try:
        yield lines
    finally:
        lines.close()


def submit(lines: Lines, count: int = 1, *, first: int = 0) -> list[bool]:
    """Send so many requests, in slots of their own."""
    return [lines.submit(Stream(framed_of(), slot, time.monotonic_ns())) for slot in range(first, first + count)]


def await_that(lines: Lines, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        lines.wait(0.02)


def ended(lines: Lines, count: int) -> list[tuple[int, str | None]]:
    """Wait until so many have ended; slots and errors, by slot."""
    await_that(lines, lambda: len(lines.ended) >= count)
    told = sorted((stream.slot, stream.error) for stream in lines.ended)
    lines.ended.clear()
    return told


def well(*slots: int) -> list[tuple[int, str | None]]:
    return [(slot, None) for slot in slots]


@pytest.mark.parametrize("connections", [1, 3])
def test_requests_are_spread_over_as_many_connections_as_are_asked_for(connections: int) -> None:
    with Http2Peer() as peer, lines_of(peer.plan(connections=connections)) as lines:
        assert all(submit(lines, 9))
        assert ended(lines, 9) == well(*range(9))
        assert [talk.count for talk in peer.talks] == [9 // connections] * connections
        assert (lines.only is None) == (connections > 1)


def test_where_the_server_takes_few_streams_there_are_more_connections() -> None:
    with Http2Peer(settings={MOST_STREAMS: 2}) as peer, lines_of(peer.plan()) as lines:
        for _ in range(3):
            assert all(submit(lines, 5))
            assert lines.under_way == 5
            assert ended(lines, 5) == well(*range(5))
        assert peer.accepted == 3
        assert lines.only is None


def test_where_the_server_takes_no_streams_more_connections_are_of_no_use() -> None:
    with Http2Peer(settings={MOST_STREAMS: 0}) as peer, lines_of(peer.plan()) as lines:
        assert submit(lines, 50) == [False] * 50
        assert peer.accepted == 1
        # It changes its mind.
        peer.talks[0].side.h2.update_settings({MOST_STREAMS: 100})
        peer.talks[0].flush()
        await_that(lines, lambda: submit(lines) == [True])
        assert ended(lines, 1) == well(0)


def test_a_server_may_take_fewer_streams_midway() -> None:
    def serve(talk: Talk, stream: int) -> None:
        if talk.number:
            echo(talk, stream)
        elif talk.count == 4:
            talk.side.h2.update_settings({MOST_STREAMS: 1})

    with Http2Peer(serve, settings={MOST_STREAMS: 10}) as peer, lines_of(peer.plan()) as lines:
        submit(lines, 4)
        await_that(lines, lambda: lines.only is not None and not lines.only.connection.has_room)
        submit(lines, first=4)
        assert ended(lines, 1) == well(4)
        assert [talk.count for talk in peer.talks] == [4, 1]


def test_no_more_connections_are_needed_where_others_are_not_to_be_had() -> None:
    with Http2Peer(settings={MOST_STREAMS: 2}) as peer, lines_of(peer.plan(connections=2)) as lines:
        submit(lines, 1)
        assert ended(lines, 1) == well(0)
        peer.refuse()
        assert submit(lines, 3) == [True, True, False]
        assert ended(lines, 2) == well(0, 1)


def test_a_server_that_goes_away_loses_no_request() -> None:
    """The first connection takes two of five requests, and ends."""

    def serve(talk: Talk, stream: int) -> None:
        if talk.number:
            echo(talk, stream)
        elif talk.count == 5:
            talk.side.h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=3)
            talk.flush()
            # h2 lets one say nothing after that.
            talk.plug.sendall(raw_answer(1) + raw_answer(3))

    with Http2Peer(serve) as peer, lines_of(peer.plan()) as lines:
        submit(lines, 5)
        assert ended(lines, 5) == well(*range(5))
        assert [talk.count for talk in peer.talks] == [5, 3]
        submit(lines)
        assert ended(lines, 1) == well(0)
        assert lines.only
        assert peer.accepted == 2


def test_refused_requests_are_sent_again_three_times_in_all() -> None:
    def serve(talk: Talk, stream: int) -> None:
        if bytes(talk.side.asked[stream].body[5:]) == b"never" or talk.count % 3:
            talk.side.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        else:
            echo(talk, stream)

    with Http2Peer(serve) as peer, lines_of(peer.plan()) as lines:
        submit(lines)
        assert ended(lines, 1) == well(0)
        assert peer.count == 3
        lines.submit(Stream(framed_of(b"never"), 1, time.monotonic_ns()))
        assert ended(lines, 1) == [(1, "UNAVAILABLE: the server reset the stream (REFUSED_STREAM)")]
        assert peer.count == 6


def test_a_refused_request_that_finds_no_room_has_failed() -> None:
    def serve(talk: Talk, stream: int) -> None:
        talk.side.h2.update_settings({MOST_STREAMS: 0})
        talk.side.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)

    with Http2Peer(serve) as peer, lines_of(peer.plan()) as lines:
        submit(lines)
        assert ended(lines, 1) == [(0, "UNAVAILABLE: the server refused the request, and no connection has room")]


def half_close(talk: Talk) -> None:
    talk.plug.shutdown(socket.SHUT_WR)
    while talk.plug.recv(1 << 16):
        pass


def cut_off(talk: Talk) -> None:
    talk.plug.sendall(raw_answer(1)[:40])
    talk.plug.close()


def crash(talk: Talk) -> None:
    talk.plug.sendall(raw_answer(1)[:40])
    reset(talk.plug)


def talk_nonsense(talk: Talk) -> None:
    talk.plug.sendall(b"\0\0\0\0\0\0\0\0\0")
    talk.plug.recv(1)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (half_close, "connection closed by the server"),
        (cut_off, "connection closed by the server"),
        (crash, "Connection reset by peer"),
        (
            talk_nonsense,
            "the server does not keep to HTTP/2: a DATA frame of stream 0, which was never opened",
        ),
    ],
)
def test_a_lost_connection_ends_what_was_under_way_on_it_and_another_follows(
    end: Callable[[Talk], None], reason: str
) -> None:
    def serve(talk: Talk, stream: int) -> None:
        if talk.number:
            echo(talk, stream)
        elif talk.count == 2:
            end(talk)

    with Http2Peer(serve) as peer, lines_of(peer.plan()) as lines:
        submit(lines, 2)
        error = f"UNAVAILABLE: the connection is lost: {reason}"
        assert ended(lines, 2) == [(0, error), (1, error)]
        assert lines.under_way == 0
        submit(lines, 2)
        assert ended(lines, 2) == well(0, 1)
        assert peer.accepted == 2


def test_requests_to_nobody_end_at_once_and_cost_few_attempts() -> None:
    with Http2Peer() as peer:
        plan = peer.plan()
    with lines_of(plan) as lines:
        assert submit(lines, 1000) == [True] * 1000
        assert len(lines.ended) == 1000
        assert {stream.error for stream in lines.ended} == {
            f"UNAVAILABLE: failed to connect to {plan.endpoint.address}: Connection refused"
        }
        assert lines.under_way == 0


def test_what_has_ended_is_not_waited_for() -> None:
    with Http2Peer(keep_silent) as peer, lines_of(peer.plan()) as lines:
        submit(lines)
        lines.ended.append(Stream(framed_of(), 7, 0))
        began = time.monotonic()
        lines.wait(60)
        assert time.monotonic() - began < 30


def test_requests_end_at_their_deadline_counted_from_when_they_were_sent() -> None:
    with Http2Peer(keep_silent) as peer, lines_of(peer.plan(request_timeout_s=10)) as lines:
        second = 1_000_000_000
        for slot, (due_s, lag_s) in enumerate([(1, 0), (2, 0), (2, 3), (6, 0)]):
            lines.submit(Stream(framed_of(), slot, due_s * second, lag_s * 1_000_000))
        told = []
        for now_s in range(1, 18):
            lines.expire(now_s * second)
            told += [(stream.slot, now_s) for stream in lines.ended]
            assert all(stream.error == "DEADLINE_EXCEEDED: no answer in 10 s" for stream in lines.ended)
            lines.ended.clear()
        assert told == [(0, 11), (1, 12), (2, 15), (3, 16)]
        await_that(lines, lambda: sum(each.reset is ErrorCodes.CANCEL for each in peer.asked) == 4)


def test_all_can_be_given_up() -> None:
    with Http2Peer(keep_silent) as peer, lines_of(peer.plan(connections=2)) as lines:
        submit(lines, 6)
        await_that(lines, lambda: peer.count == 6)
        lines.cancel_all()
        assert lines.under_way == 0
        assert not lines.ended
        await_that(lines, lambda: all(each.reset is ErrorCodes.CANCEL for each in peer.asked))
        # The connections are as good as before.
        submit(lines, 2)
        await_that(lines, lambda: peer.count == 8)
        assert peer.accepted == 2


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_connection_that_takes_nothing_more_is_given_up_with_what_was_on_it() -> None:
    """What comes next would wait behind bytes that nobody wants."""
    clogged, reading = threading.Event(), threading.Event()

    def serve(talk: Talk, stream: int) -> None:
        if talk.number:
            echo(talk, stream)
            return
        talk.side.give(0, 1 << 30)
        talk.flush()
        clogged.set()
        reading.wait(60)

    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30}
    with Http2Peer(serve, settings=settings) as peer, lines_of(peer.plan()) as lines:
        submit(lines)
        await_that(lines, clogged.is_set)
        line = lines.only
        assert line
        await_that(lines, lambda: line.connection.window > 1 << 29)
        for slot in range(1, 5):
            lines.submit(Stream(framed_of(bytes(4_000_000)), slot, 0))
        lines.flush()
        assert line.connection.out
        lines.cancel_all()
        assert lines.only is None
        submit(lines, 2)
        assert ended(lines, 2) == well(0, 1)
        reading.set()
        # The peer has lost what it had not read.
        peer._threads[1].join(20)
        assert len(peer.talks[0].side.asked) < 3


def rest_until(lines: Lines, pipe: tuple[int, int], condition: Callable[[], bool]) -> None:
    """Rest until something is so."""

    def wake() -> None:
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.write(pipe[1], b"!")

    thread = threading.Thread(target=wake)
    thread.start()
    lines.rest(pipe[0])
    thread.join()
    assert condition()


def test_it_answers_while_it_rests(pipe: tuple[int, int]) -> None:
    with Http2Peer() as peer, lines_of(peer.plan()) as lines:
        submit(lines)
        assert ended(lines, 1) == well(0)
        peer.talks[0].plug.sendall(PING)
        rest_until(lines, pipe, lambda: peer.talks[0].side.pongs == 1)


def test_a_connection_that_is_lost_at_rest_is_opened_anew(pipe: tuple[int, int]) -> None:
    with Http2Peer() as peer, lines_of(peer.plan()) as lines:
        submit(lines)
        assert ended(lines, 1) == well(0)
        peer.talks[0].plug.shutdown(socket.SHUT_RDWR)
        rest_until(lines, pipe, lambda: lines.only is None)
        submit(lines)
        assert ended(lines, 1) == well(0)


def test_what_had_come_before_a_connection_broke_counts() -> None:
    with Http2Peer() as peer, lines_of(peer.plan()) as lines:
        lines.submit(Stream(framed_of(b"echo"), 0, time.monotonic_ns()))
        lines.flush()
        line = lines.only
        assert line
        line.plug.settimeout(20)
        # There is something to read before, too.
        while b"echo" not in line.plug.recv(1 << 16, socket.MSG_PEEK):
            pass
        # From now on it cannot be written to.
        line.plug.shutdown(socket.SHUT_WR)
        submit(lines, first=1)
        assert ended(lines, 2) == [(0, None), (1, "UNAVAILABLE: the connection is lost: Broken pipe")]
