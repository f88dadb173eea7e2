"""Peers that do wrong, or go away, while an offer goes on."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from support.certificates import Certificates
from support.connections import SETTINGS, raw_answer
from support.http2_peer import Http2Peer, Talk, echo, keep_silent, plan_for
from support.offers import count, driving, never, offer
from support.socket_peer import SocketPeer, reset

from tuner.core.loads import Concurrency, Load, Replay, RequestRate
from tuner.load.wire import frames
from tuner.options.endpoint import Tls

LOST = "UNAVAILABLE: connection lost: "


def goes_away_after(most: int, talk: Talk, stream: int) -> None:
    """Takes so many requests on a connection; what comes later is for another."""
    if talk.count > most:
        del talk.side.asked[stream]
        return
    echo(talk, stream)
    if talk.count == most:
        talk.flush()
        talk.socket.sendall(frames.frame(frames.GOAWAY, 0, 0, stream.to_bytes(4, "big") + bytes(4)))


def test_a_server_that_goes_away_again_and_again_loses_no_request() -> None:
    def serve(talk: Talk, stream: int) -> None:
        goes_away_after(50, talk, stream)

    # So few that none can be sent away three times, however many are under way at once.
    burst = Replay("test", tuple(range(0, 150_000_000, 1_000_000)))
    with Http2Peer(serve) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, burst, never)
        assert samples.errors == {}
        assert len(samples) == 150
        assert peer.accepted >= 3
        assert offer(driver, Concurrency(8), count(500)).errors == {}
        assert peer.accepted >= 13


def test_requests_that_are_refused_now_and_then_are_answered_all_the_same() -> None:
    def serve(talk: Talk, stream: int) -> None:
        if talk.count % 50 == 0:
            talk.side.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        else:
            echo(talk, stream)

    with Http2Peer(serve) as peer, driving(peer.plan()) as driver:
        for load in (Concurrency(4), RequestRate(500)):
            assert offer(driver, load, count(200)).errors == {}
        assert peer.accepted == 1


@pytest.mark.parametrize("load", [Concurrency(4), RequestRate(400)])
@pytest.mark.parametrize("how", ["half closed", "reset", "nonsense"])
def test_a_connection_that_breaks_costs_what_was_under_way_on_it(load: Load, how: str) -> None:
    def serve(talk: Talk, stream: int) -> None:
        if talk.count % 50:
            echo(talk, stream)
            return
        talk.flush()
        talk.socket.sendall(raw_answer(stream, b"request")[:-7])
        if how == "half closed":
            talk.socket.shutdown(socket.SHUT_WR)
        elif how == "reset":
            reset(talk.socket)
        else:
            talk.socket.sendall(b"\0\0\0\0\0\0\0\0\0")
        while talk.socket.recv(1 << 16):
            pass

    with Http2Peer(serve) as peer, driving(peer.plan()) as driver:
        samples = offer(driver, load, lambda samples: len(samples) >= 400 and peer.accepted > 4)
        broken = peer.accepted - 1
    assert broken >= 4
    assert all(message.startswith(LOST) for message in samples.errors)
    failed = np.count_nonzero(~samples.ok)
    assert sum(samples.errors.values()) == failed >= broken
    if isinstance(load, Concurrency):
        assert failed <= load.requests * (broken + 1)
    if how != "reset":  # which takes answers along that are on their way
        assert np.count_nonzero(samples.ok) >= 49 * broken


@pytest.mark.parametrize("load", [Concurrency(4), RequestRate(200)])
def test_a_server_that_stops_reading_costs_its_requests_only(load: Load) -> None:
    """They are large, and go nowhere from some moment on; when it reads again, all is well again."""
    stalled, reading = threading.Event(), threading.Event()

    def serve(talk: Talk, stream: int) -> None:
        if talk.count == 1:
            talk.side.give(0, 1 << 30)
        elif talk.count == 10:
            stalled.set()
            reading.wait(60)
        echo(talk, stream)

    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30}
    with (
        Http2Peer(serve, settings=settings) as peer,
        driving(peer.plan(bytes(1_000_000), request_timeout_s=0.3)) as driver,
    ):
        samples = offer(
            driver, load, lambda samples: stalled.is_set() and np.count_nonzero(~samples.ok) >= 12, drain_s=0.1
        )
        assert stalled.is_set()
        assert set(samples.errors) == {"DEADLINE_EXCEEDED: no answer within 0.3 s"}
        reading.set()
        again = offer(driver, Concurrency(1), lambda samples: bool(samples.ok.any()))
        assert again.ok.any()


def listen(sock: socket.socket) -> None:
    while sock.recv(1 << 20):
        pass


def answer_in_http_1(sock: socket.socket) -> None:
    sock.recv(1 << 20)
    sock.sendall(b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n")
    listen(sock)


def break_off(sock: socket.socket) -> None:
    sock.recv(1 << 20)
    sock.sendall(SETTINGS[:5])


@pytest.mark.parametrize("load", [Concurrency(3), RequestRate(100)])
@pytest.mark.parametrize(
    ("serve", "timeout_s", "reason"),
    [
        (listen, 0.2, "no HTTP/2 SETTINGS frame within 0.2 s"),
        (answer_in_http_1, 20, "the server violates HTTP/2: its first frame is not SETTINGS: b'HTTP/1.1 505 "),
        (break_off, 20, "connection closed by the server"),
    ],
)
def test_who_does_not_speak_http_2_ends_in_errors(load: Load, serve: object, timeout_s: float, reason: str) -> None:
    assert callable(serve)
    with SocketPeer(serve) as peer, driving(plan_for(peer.address, request_timeout_s=timeout_s)) as driver:
        samples = offer(driver, load, count(10))
    assert not samples.ok.any()
    for message in samples.errors:
        assert message.startswith(f"UNAVAILABLE: failed to connect to {peer.address}: {reason}")


def test_who_accepts_and_says_nothing_ends_with_the_offer() -> None:
    """Its requests fail together, and are tried rarely."""
    with SocketPeer(listen) as peer, driving(plan_for(peer.address, request_timeout_s=0.2)) as driver:
        samples = offer(driver, Concurrency(50), count(300))
        assert len(samples) >= 300
        assert peer.accepted < 30


@pytest.mark.parametrize("load", [Concurrency(8), RequestRate(500)])
def test_over_tls_as_in_the_clear(certificates: Certificates, load: Load) -> None:
    with (
        Http2Peer(context=certificates.serving(mutual=True)) as peer,
        driving(peer.plan(b"small", bytes(300_000), tls=certificates.mutual)) as driver,
    ):
        samples = offer(driver, load, count(60))
        assert samples.errors == {}
        assert set(samples.received.tolist()) == {10, 300_005}
        assert peer.accepted == 1


def test_a_certificate_that_is_not_trusted_fails_every_request(certificates: Certificates) -> None:
    with (
        Http2Peer(context=certificates.serving()) as peer,
        driving(peer.plan(tls=Tls(certificates.other_ca))) as driver,
    ):
        samples = offer(driver, Concurrency(2), count(4))
    (message,) = samples.errors
    assert message.startswith(f"UNAVAILABLE: failed to connect to {peer.address}: certificate not trusted: ")


@pytest.mark.parametrize("load", [Concurrency(4), RequestRate(300)])
def test_windows_of_one_byte_are_slow_and_no_more(load: Load) -> None:
    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1}
    with Http2Peer(settings=settings, step=1) as peer, driving(peer.plan(b"", b"twenty bytes or more")) as driver:
        # Of an open loop, small ones may pass many large ones.
        samples = offer(driver, load, lambda samples: len(samples) >= 50 and set(samples.received) == {5, 25})
        assert samples.errors == {}
        assert set(samples.received.tolist()) == {5, 25}


def test_several_limits_at_once() -> None:
    """Few streams, small windows, small frames, and large requests."""
    settings = {SettingCodes.INITIAL_WINDOW_SIZE: 5_000, SettingCodes.MAX_CONCURRENT_STREAMS: 3}
    with Http2Peer(settings=settings, step=1_000) as peer, driving(peer.plan(bytes(50_000))) as driver:
        samples = offer(driver, Concurrency(7), count(50))
        assert samples.errors == {}
        assert peer.accepted == 3


def test_a_silent_server_is_left_when_the_offer_is_over() -> None:
    with Http2Peer(keep_silent) as peer, driving(peer.plan(request_timeout_s=60)) as driver:
        samples = offer(driver, Concurrency(4), lambda _: peer.count == 4, drain_s=0.05)
        assert len(samples) == 0
