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
from tuner.load.wire.pool import ConnectionPool
from tuner.load.wire.stream import Stream
from tuner.load.workload import Plan

MOST_STREAMS = SettingCodes.MAX_CONCURRENT_STREAMS
PING = frames.frame(frames.PING, 0, 0, b"abcdefgh")


@contextmanager
def pool_of(plan: Plan) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(plan)
    try:
        yield pool
    finally:
        pool.close()


def submit(pool: ConnectionPool, count: int = 1, *, first: int = 0) -> list[bool]:
    """Send so many requests, in slots of their own."""
    return [pool.submit(Stream(framed_of(), slot, time.monotonic_ns())) for slot in range(first, first + count)]


def await_that(pool: ConnectionPool, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        pool.wait(0.02)


def ended(pool: ConnectionPool, count: int) -> list[tuple[int, str | None]]:
    """Wait until so many have ended; slots and errors, by slot."""
    await_that(pool, lambda: len(pool.ended) >= count)
    told = sorted((stream.slot, stream.error) for stream in pool.ended)
    pool.ended.clear()
    return told


def well(*slots: int) -> list[tuple[int, str | None]]:
    return [(slot, None) for slot in slots]


@pytest.mark.parametrize("connections", [1, 3])
def test_requests_are_spread_over_as_many_connections_as_are_asked_for(connections: int) -> None:
    with Http2Peer() as peer, pool_of(peer.plan(connections=connections)) as pool:
        assert all(submit(pool, 9))
        assert ended(pool, 9) == well(*range(9))
        assert [talk.count for talk in peer.talks] == [9 // connections] * connections
        assert (pool.only is None) == (connections > 1)


def test_where_the_server_takes_few_streams_there_are_more_connections() -> None:
    with Http2Peer(settings={MOST_STREAMS: 2}) as peer, pool_of(peer.plan()) as pool:
        for _ in range(3):
            assert all(submit(pool, 5))
            assert pool.under_way == 5
            assert ended(pool, 5) == well(*range(5))
        assert peer.accepted == 3
        assert pool.only is None


def test_where_the_server_takes_no_streams_more_connections_are_of_no_use() -> None:
    with Http2Peer(settings={MOST_STREAMS: 0}) as peer, pool_of(peer.plan()) as pool:
        assert submit(pool, 50) == [False] * 50
        assert peer.accepted == 1
        # It changes its mind.
        peer.talks[0].side.h2.update_settings({MOST_STREAMS: 100})
        peer.talks[0].flush()
        await_that(pool, lambda: submit(pool) == [True])
        assert ended(pool, 1) == well(0)


def test_a_server_may_take_fewer_streams_midway() -> None:
    def serve(talk: Talk, stream: int) -> None:
        if talk.number:
            echo(talk, stream)
        elif talk.count == 4:
            talk.side.h2.update_settings({MOST_STREAMS: 1})

    with Http2Peer(serve, settings={MOST_STREAMS: 10}) as peer, pool_of(peer.plan()) as pool:
        submit(pool, 4)
        await_that(pool, lambda: pool.only is not None and not pool.only.http2.has_room)
        submit(pool, first=4)
        assert ended(pool, 1) == well(4)
        assert [talk.count for talk in peer.talks] == [4, 1]


def test_no_more_connections_are_needed_where_others_are_not_to_be_had() -> None:
    with Http2Peer(settings={MOST_STREAMS: 2}) as peer, pool_of(peer.plan(connections=2)) as pool:
        submit(pool, 1)
        assert ended(pool, 1) == well(0)
        peer.refuse()
        assert submit(pool, 3) == [True, True, False]
        assert ended(pool, 2) == well(0, 1)


def test_a_server_that_goes_away_loses_no_request() -> None:
    """The first connection takes two of five requests, and ends."""

    def serve(talk: Talk, stream: int) -> None:
        if talk.number:
            echo(talk, stream)
        elif talk.count == 5:
            talk.side.h2.close_connection(ErrorCodes.NO_ERROR, last_stream_id=3)
            talk.flush()
            # h2 lets one say nothing after that.
            talk.socket.sendall(raw_answer(1) + raw_answer(3))

    with Http2Peer(serve) as peer, pool_of(peer.plan()) as pool:
        submit(pool, 5)
        assert ended(pool, 5) == well(*range(5))
        assert [talk.count for talk in peer.talks] == [5, 3]
        submit(pool)
        assert ended(pool, 1) == well(0)
        assert pool.only
        assert peer.accepted == 2


def test_refused_requests_are_sent_again_three_times_in_all() -> None:
    def serve(talk: Talk, stream: int) -> None:
        if bytes(talk.side.asked[stream].body[5:]) == b"never" or talk.count % 3:
            talk.side.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        else:
            echo(talk, stream)

    with Http2Peer(serve) as peer, pool_of(peer.plan()) as pool:
        submit(pool)
        assert ended(pool, 1) == well(0)
        assert peer.count == 3
        pool.submit(Stream(framed_of(b"never"), 1, time.monotonic_ns()))
        assert ended(pool, 1) == [(1, "UNAVAILABLE: the server reset the stream (REFUSED_STREAM)")]
        assert peer.count == 6


def test_a_refused_request_that_finds_no_room_has_failed() -> None:
    def serve(talk: Talk, stream: int) -> None:
        talk.side.h2.update_settings({MOST_STREAMS: 0})
        talk.side.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)

    with Http2Peer(serve) as peer, pool_of(peer.plan()) as pool:
        submit(pool)
        assert ended(pool, 1) == [(0, "UNAVAILABLE: the server refused the request, and no other connection has room")]


def half_close(talk: Talk) -> None:
    talk.socket.shutdown(socket.SHUT_WR)
    while talk.socket.recv(1 << 16):
        pass


def cut_off(talk: Talk) -> None:
    talk.socket.sendall(raw_answer(1)[:40])
    talk.socket.close()


def crash(talk: Talk) -> None:
    talk.socket.sendall(raw_answer(1)[:40])
    reset(talk.socket)


def talk_nonsense(talk: Talk) -> None:
    talk.socket.sendall(b"\0\0\0\0\0\0\0\0\0")
    talk.socket.recv(1)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (half_close, "connection closed by the server"),
        (cut_off, "connection closed by the server"),
        (crash, "Connection reset by peer"),
        (
            talk_nonsense,
            "the server violates HTTP/2: DATA frame on stream 0, which was never opened (PROTOCOL_ERROR)",
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

    with Http2Peer(serve) as peer, pool_of(peer.plan()) as pool:
        submit(pool, 2)
        error = f"UNAVAILABLE: connection lost: {reason}"
        assert ended(pool, 2) == [(0, error), (1, error)]
        assert pool.under_way == 0
        submit(pool, 2)
        assert ended(pool, 2) == well(0, 1)
        assert peer.accepted == 2


def test_requests_to_nobody_end_at_once_and_cost_few_attempts() -> None:
    with Http2Peer() as peer:
        plan = peer.plan()
    with pool_of(plan) as pool:
        assert submit(pool, 1000) == [True] * 1000
        assert len(pool.ended) == 1000
        assert {stream.error for stream in pool.ended} == {
            f"UNAVAILABLE: failed to connect to {plan.endpoint.address}: Connection refused"
        }
        assert pool.under_way == 0


def test_what_has_ended_is_not_waited_for() -> None:
    with Http2Peer(keep_silent) as peer, pool_of(peer.plan()) as pool:
        submit(pool)
        pool.ended.append(Stream(framed_of(), 7, 0))
        began = time.monotonic()
        pool.wait(60)
        assert time.monotonic() - began < 30


def test_requests_end_at_their_deadline_counted_from_when_they_were_sent() -> None:
    with Http2Peer(keep_silent) as peer, pool_of(peer.plan(request_timeout_s=10)) as pool:
        second = 1_000_000_000
        for slot, (due_s, lag_s) in enumerate([(1, 0), (2, 0), (2, 3), (6, 0)]):
            pool.submit(Stream(framed_of(), slot, due_s * second, lag_s * 1_000_000))
        told = []
        for now_s in range(1, 18):
            pool.expire(now_s * second)
            told += [(stream.slot, now_s) for stream in pool.ended]
            assert all(stream.error == "DEADLINE_EXCEEDED: no answer within 10 s" for stream in pool.ended)
            pool.ended.clear()
        assert told == [(0, 11), (1, 12), (2, 15), (3, 16)]
        await_that(pool, lambda: sum(each.reset is ErrorCodes.CANCEL for each in peer.asked) == 4)


def test_all_can_be_given_up() -> None:
    with Http2Peer(keep_silent) as peer, pool_of(peer.plan(connections=2)) as pool:
        submit(pool, 6)
        await_that(pool, lambda: peer.count == 6)
        pool.cancel_all()
        assert pool.under_way == 0
        assert not pool.ended
        await_that(pool, lambda: all(each.reset is ErrorCodes.CANCEL for each in peer.asked))
        # The connections are as good as before.
        submit(pool, 2)
        await_that(pool, lambda: peer.count == 8)
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
    with Http2Peer(serve, settings=settings) as peer, pool_of(peer.plan()) as pool:
        submit(pool)
        await_that(pool, clogged.is_set)
        connection = pool.only
        assert connection
        await_that(pool, lambda: connection.http2.window > 1 << 29)
        for slot in range(1, 5):
            pool.submit(Stream(framed_of(bytes(4_000_000)), slot, 0))
        pool.flush()
        assert connection.http2.out
        pool.cancel_all()
        assert pool.only is None
        submit(pool, 2)
        assert ended(pool, 2) == well(0, 1)
        reading.set()
        # The peer has lost what it had not read.
        peer._threads[1].join(20)
        assert len(peer.talks[0].side.asked) < 3


def rest_until(pool: ConnectionPool, pipe: tuple[int, int], condition: Callable[[], bool]) -> None:
    """Rest until something is so."""

    def wake() -> None:
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.write(pipe[1], b"!")

    thread = threading.Thread(target=wake)
    thread.start()
    pool.rest(pipe[0])
    thread.join()
    assert condition()


def test_it_answers_while_it_rests(pipe: tuple[int, int]) -> None:
    with Http2Peer() as peer, pool_of(peer.plan()) as pool:
        submit(pool)
        assert ended(pool, 1) == well(0)
        peer.talks[0].socket.sendall(PING)
        rest_until(pool, pipe, lambda: peer.talks[0].side.pongs == 1)


def test_a_connection_that_is_lost_at_rest_is_opened_anew(pipe: tuple[int, int]) -> None:
    with Http2Peer() as peer, pool_of(peer.plan()) as pool:
        submit(pool)
        assert ended(pool, 1) == well(0)
        peer.talks[0].socket.shutdown(socket.SHUT_RDWR)
        rest_until(pool, pipe, lambda: pool.only is None)
        submit(pool)
        assert ended(pool, 1) == well(0)


def test_what_had_come_before_a_connection_broke_counts() -> None:
    with Http2Peer() as peer, pool_of(peer.plan()) as pool:
        pool.submit(Stream(framed_of(b"echo"), 0, time.monotonic_ns()))
        pool.flush()
        connection = pool.only
        assert connection
        connection.socket.settimeout(20)
        # There is something to read before, too.
        while b"echo" not in connection.socket.recv(1 << 16, socket.MSG_PEEK):
            pass
        # From now on it cannot be written to.
        connection.socket.shutdown(socket.SHUT_WR)
        submit(pool, first=1)
        assert ended(pool, 2) == [(0, None), (1, "UNAVAILABLE: connection lost: Broken pipe")]
