"""A connection and its socket: TCP, or TLS over it."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from typing import Final

from tuner.load.failures import describe
from tuner.load.wire.frames import ProtocolError
from tuner.load.wire.http2_connection import Http2Connection
from tuner.load.wire.stream import Stream
from tuner.options.endpoint import Endpoint

TICK_S: Final = 0.02
"""The longest wait for bytes, in seconds, and the period of checks of deadlines and the stop flag."""

_LONGEST_CONNECT_S = 5.0
_SMALL_READ, _LARGE_READ = 1 << 16, 1 << 20
# Buffers in one sendmsg call; Linux takes 1,024 (IOV_MAX).
_PIECES = 512
_RECORD_BYTES = 1 << 14  # the largest TLS record (RFC 8446, section 5.1)
_AT_ONCE = struct.pack("ii", 1, 0)
_CLOSED = "connection closed by the server"


class UnreachableError(Exception):
    """No connection can be made; the text is `CODE: message`."""


class Connection:
    """One connection to a server. Only `connect` waits, and `read` if `wait` is set.

    Attributes:
        socket: The socket, connected.
        http2: The state of HTTP/2 on it.
        tls: Whether the socket is encrypted.
    """

    def __init__(self, sock: socket.socket, http2: Http2Connection, *, tls: bool) -> None:
        self.socket = sock
        self.http2 = http2
        self.tls = tls
        self._read_bytes = _SMALL_READ

    @classmethod
    def connect(
        cls, endpoint: Endpoint, context: ssl.SSLContext | None, patience_s: float = _LONGEST_CONNECT_S
    ) -> Connection:
        """Connect, and do the HTTP/2 handshake; each takes at most 5 s.

        Args:
            endpoint: The server.
            context: The TLS context; None: no TLS.
            patience_s: A shorter limit on each, in seconds.

        Raises:
            UnreachableError: there is no answer, or the peer does not speak HTTP/2.
        """
        patience_s = min(patience_s, _LONGEST_CONNECT_S)
        try:
            sock = socket.create_connection((endpoint.host, endpoint.port), timeout=patience_s)
        except (OSError, UnicodeError) as error:
            raise UnreachableError(_unavailable(endpoint, _reason(error))) from None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context:
                sock = _encrypted(sock, endpoint, context)
            sock.settimeout(0 if context else None)
            # Saves a system call for each wait: Python's own time-out polls before it reads.
            tick = struct.pack("ll", 0, round(TICK_S * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
            connection = cls(sock, Http2Connection(), tls=context is not None)
            connection.handshake(patience_s)
        except (OSError, ProtocolError) as error:
            sock.close()
            raise UnreachableError(_unavailable(endpoint, _reason(error))) from None
        except BaseException:
            sock.close()
            raise
        return connection

    def handshake(self, patience_s: float) -> None:
        """Exchange prefaces and settings with the peer (RFC 9113, section 3.4).

        Raises:
            OSError: the peer sends nothing within `patience_s` seconds, or closes the connection.
            ProtocolError: the peer does not speak HTTP/2.
        """
        deadline = time.monotonic() + patience_s
        try:
            self.flush()
        except OSError:
            # Bytes that the peer sent before it closed the connection may explain the error.
            self.read(wait=False)
            raise
        while not self.http2.peer_is_known:
            if not select.select([self], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no HTTP/2 SETTINGS frame within {patience_s:g} s")
            self.read(wait=False)
        self.flush()

    def fileno(self) -> int:
        """The descriptor of the socket, for `select`."""
        return self.socket.fileno()

    def read(self, *, wait: bool) -> None:
        """Receive the bytes that have arrived, and process them.

        Args:
            wait: Wait up to `TICK_S` until something arrives; ignored for TLS.

        Raises:
            OSError: the connection is broken, or was closed by the peer.
            ProtocolError: the peer violates HTTP/2.
        """
        if self.tls:
            self._read_encrypted()
            return
        try:
            data = self.socket.recv(self._read_bytes, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self.take(data)
        if len(data) == self._read_bytes:
            self._read_bytes = _LARGE_READ

    def take(self, data: bytes) -> None:
        """Process bytes that were read from the socket.

        Raises:
            ConnectionResetError: there are no bytes, as the peer has closed the connection.
            ProtocolError: the bytes violate HTTP/2.
        """
        if not data:
            raise ConnectionResetError(_CLOSED)
        self.http2.receive(data)

    def flush(self) -> None:
        """Send pending bytes, as many as the kernel takes.

        Raises:
            OSError: the connection is broken.
        """
        http2 = self.http2
        out = http2.out
        try:
            while out:
                if self.tls:
                    self._send_encrypted(out)
                elif http2.bulky:
                    _drop(out, self.socket.sendmsg(out[:_PIECES], (), socket.MSG_DONTWAIT))
                else:
                    whole = b"".join(out)
                    sent = self.socket.send(whole, socket.MSG_DONTWAIT)
                    out[:] = (whole[sent:],) if sent < len(whole) else ()
            http2.bulky = False
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass

    def send_small(self, streams: Sequence[Stream]) -> bool:
        """Send pending bytes in one system call, and time the requests. Small requests over TCP only.

        Args:
            streams: The requests that are sent; their `sent_ns` is set.

        Returns:
            Whether all was sent; else call `flush`.
        """
        http2 = self.http2
        if http2.bulky or http2.unsent:
            return False
        out = http2.out
        whole = b"".join(out)
        now_ns = time.monotonic_ns()
        for stream in streams:
            stream.sent_ns = now_ns
        try:
            sent = self.socket.send(whole, socket.MSG_DONTWAIT)
        except OSError:
            return False
        if sent < len(whole):
            out[:] = (whole[sent:],)
            return False
        out.clear()
        return True

    def close(self) -> None:
        """Close the socket; the kernel still sends the bytes in its buffer."""
        self.socket.close()

    def reset(self) -> None:
        """Close the socket with a reset (SO_LINGER 0): bytes that the peer has not read are lost."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.socket.close()

    def _send_encrypted(self, out: list[bytes | memoryview]) -> None:
        """Send the first pieces as one TLS record, if they are small.

        After a refusal, TLS requires the same bytes again; more bytes may follow them.
        """
        count, size = 1, len(out[0])
        while count < len(out) and size + len(out[count]) <= _RECORD_BYTES:
            size += len(out[count])
            count += 1
        if count > 1:
            out[:count] = (b"".join(out[:count]),)
        _drop(out, self.socket.send(out[0]))

    def _read_encrypted(self) -> None:
        """Read until TLS has no more bytes, since `select` does not see decrypted ones."""
        while True:
            try:
                data = self.socket.recv(_SMALL_READ)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self.take(data)


def lost(error: Exception) -> str:
    """The error of the requests on a broken connection, as `CODE: message`."""
    return describe("UNAVAILABLE", f"connection lost: {_reason(error)}")


def _encrypted(sock: socket.socket, endpoint: Endpoint, context: ssl.SSLContext) -> ssl.SSLSocket:
    name = endpoint.tls.server_name if endpoint.tls and endpoint.tls.server_name else endpoint.host
    encrypted = context.wrap_socket(sock, server_hostname=name)
    if encrypted.selected_alpn_protocol() != "h2":
        encrypted.close()
        raise ProtocolError("TLS did not negotiate HTTP/2 (ALPN h2)")
    return encrypted


def _unavailable(endpoint: Endpoint, reason: str) -> str:
    return describe("UNAVAILABLE", f"failed to connect to {endpoint.address}: {reason}")


def _reason(error: Exception) -> str:
    if isinstance(error, ProtocolError):
        return f"the server violates HTTP/2: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLEOFError):
        return _CLOSED
    if isinstance(error, ssl.SSLError):
        _, alert, words = (error.reason or str(error)).rpartition("ALERT_")
        words = words.replace("_", " ").lower()
        return f"the server refused TLS: {words}" if alert else f"TLS error: {words}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def _drop(out: list[bytes | memoryview], sent: int) -> None:
    """Take the first bytes off the pieces."""
    whole = 0
    while whole < len(out) and sent >= len(out[whole]):
        sent -= len(out[whole])
        whole += 1
    del out[:whole]
    if sent:
        out[0] = memoryview(out[0])[sent:]
