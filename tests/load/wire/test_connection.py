from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable

import pytest
from h2.settings import SettingCodes
from support.certificates import Certificates
from support.connections import SETTINGS, framed_of, outcomes
from support.http2_peer import Http2Peer, Talk, echo
from support.http2_server_side import message_of
from support.socket_peer import SocketPeer

from tuner.load.wire.connection import Connection, UnreachableError
from tuner.load.wire.stream import Stream
from tuner.options.endpoint import Endpoint, Tls


def connect(address: str, *, tls: Tls | None = None, patience_s: float = 5.0) -> Connection:
    return Connection.connect(Endpoint(address, tls=tls), tls.context("h2") if tls else None, patience_s)


def refusal(address: str, *, tls: Tls | None = None, patience_s: float = 5.0) -> str:
    """Why there is no connection to be had, after the address."""
    with pytest.raises(UnreachableError) as raised:
        connect(address, tls=tls, patience_s=patience_s)
    before, found, reason = str(raised.value).partition(f"UNAVAILABLE: failed to connect to {address}: ")
    assert found
    assert not before
    return reason


def until(connection: Connection, condition: Callable[[], bool]) -> None:
    """Read and write until something is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        connection.flush()
        select.select([connection], [connection] if connection.http2.out else [], [], 0.1)
        connection.read(wait=False)


def listen(sock: socket.socket) -> None:
    """Without a word."""
    while sock.recv(1 << 20):
        pass


def hang_up(sock: socket.socket) -> None:
    """After the client's first words."""
    sock.recv(1 << 20)


def test_a_connection_begins_with_the_first_words_of_both() -> None:
    with Http2Peer() as peer, contextlib.closing(connect(peer.address)) as connection:
        assert connection.http2.peer_is_known
        assert not connection.http2.out
        assert not connection.tls


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    assert refusal(address) == "Connection refused"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 70, "a..b"])
def test_a_name_that_is_nobodys(host: str) -> None:
    assert refusal(f"{host}:8001")


def test_who_says_nothing_is_not_waited_for_without_end() -> None:
    with SocketPeer(listen) as peer:
        assert refusal(peer.address, patience_s=0.1) == "no HTTP/2 SETTINGS frame within 0.1 s"


def test_who_says_too_little_is_not_waited_for_without_end() -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(b"\0\0\6\4")
        listen(sock)

    with SocketPeer(drip) as peer:
        assert refusal(peer.address, patience_s=0.1) == "no HTTP/2 SETTINGS frame within 0.1 s"


def test_a_server_of_http_1_is_quoted() -> None:
    def refuse(sock: socket.socket) -> None:
        sock.recv(1 << 20)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.recv(1)

    with SocketPeer(refuse) as peer:
        assert refusal(peer.address) == (
            r"the server violates HTTP/2: its first frame is not SETTINGS: b'HTTP/1.1 400 Bad Request\r\n\r\n'"
        )


def test_who_hangs_up_at_once() -> None:
    with SocketPeer(hang_up) as peer:
        assert refusal(peer.address) == "connection closed by the server"


def test_over_tls_with_a_certificate_on_either_side(certificates: Certificates) -> None:
    for mutual, tls in ((False, certificates.trusting), (True, certificates.mutual)):
        with (
            Http2Peer(context=certificates.serving(mutual=mutual)) as peer,
            contextlib.closing(connect(peer.address, tls=tls)) as connection,
        ):
            assert connection.tls
            assert connection.http2.peer_is_known


def test_a_certificate_of_another_ca_is_not_trusted(certificates: Certificates) -> None:
    with Http2Peer(context=certificates.serving()) as peer:
        reason = refusal(peer.address, tls=Tls(certificates.other_ca))
        assert reason.startswith("certificate not trusted: ")


def test_a_certificate_must_have_the_servers_name(certificates: Certificates) -> None:
    with Http2Peer(context=certificates.serving()) as peer:
        named = Tls(certificates.ca, server_name="triton.example")
        connect(peer.address, tls=named).close()
        reason = refusal(peer.address, tls=Tls(certificates.ca, server_name="other.example"))
        assert reason.startswith("certificate not trusted: Hostname mismatch")


def test_a_server_that_wants_our_certificate_says_so(certificates: Certificates) -> None:
    with Http2Peer(context=certificates.serving(mutual=True)) as peer:
        # It hangs up, too, and what it says may be lost with that.
        assert refusal(peer.address, tls=certificates.trusting) in {
            "the server refused TLS: certificate required",
            "connection closed by the server",
            "Connection reset by peer",
            "Broken pipe",
        }


def test_tls_to_a_port_in_the_clear(certificates: Certificates) -> None:
    def handshake(sock: socket.socket) -> None:
        sock.sendall(SETTINGS)
        listen(sock)

    with SocketPeer(handshake) as peer:
        reason = refusal(peer.address, tls=certificates.trusting)
        assert reason.startswith("TLS error: ")


def test_in_the_clear_to_a_port_of_tls(certificates: Certificates) -> None:
    with Http2Peer(context=certificates.serving()) as peer:
        # Some servers say in TLS what they think of it, others hang up.
        assert refusal(peer.address) in {
            "connection closed by the server",
            "Connection reset by peer",
            r"the server violates HTTP/2: its first frame is not SETTINGS: b'\x15\x03\x01\x00\x02\x02F'",
        }


def test_tls_without_http_2(certificates: Certificates) -> None:
    with SocketPeer(listen, context=certificates.serving()) as peer:
        reason = refusal(peer.address, tls=certificates.trusting)
        assert reason == "the server violates HTTP/2: TLS did not negotiate HTTP/2 (ALPN h2)"


@pytest.mark.parametrize("secure", [False, True])
def test_megabytes_go_both_ways(certificates: Certificates, *, secure: bool) -> None:
    tls, context = (certificates.trusting, certificates.serving()) if secure else (None, None)
    contents = [bytes([slot]) * (4_000_000 + slot) for slot in range(3)]
    with (
        Http2Peer(context=context) as peer,
        contextlib.closing(connect(peer.address, tls=tls)) as connection,
    ):
        for slot, content in enumerate(contents):
            connection.http2.send(Stream(framed_of(content, validates=True), slot, 0))
        until(connection, lambda: len(connection.http2.finished) == 3)
        assert sorted(outcomes(connection.http2)) == [
            (slot, len(content) + 5, None, message_of(content)) for slot, content in enumerate(contents)
        ]


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_does_not_read_holds_up_nothing_but_its_answers(
    certificates: Certificates, *, secure: bool
) -> None:
    """Large and small requests, and more after the buffers are full: all arrive whole, in the end."""
    tls, context = (certificates.trusting, certificates.serving()) if secure else (None, None)
    contents = [bytes([slot]) * (5 if slot % 2 else 3_000_000) for slot in range(8)]
    reading = threading.Event()

    def serve(talk: Talk, stream: int) -> None:
        if not reading.is_set():
            talk.side.give(0, 1 << 30)
            talk.flush()
            reading.wait(20)
        echo(talk, stream)

    with (
        Http2Peer(serve, context=context, settings={SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30}) as peer,
        contextlib.closing(connect(peer.address, tls=tls)) as connection,
    ):
        http2 = connection.http2
        http2.send(Stream(framed_of(), 9, 0))
        until(connection, lambda: http2.window > 1 << 29)
        for slot, content in enumerate(contents):
            http2.send(Stream(framed_of(content, validates=True), slot, 0))
            connection.flush()
        assert http2.out
        assert not http2.unsent
        reading.set()
        until(connection, lambda: len(http2.finished) == 9)
        assert sorted((slot, error, answer) for slot, _, error, answer in outcomes(http2))[:8] == [
            (slot, None, message_of(content)) for slot, content in enumerate(contents)
        ]
