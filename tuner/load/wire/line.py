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
from tuner.load.wire.connection import Connection
from tuner.load.wire.frames import ProtocolError
from tuner.load.wire.stream import Stream
from tuner.options.endpoint import Endpoint

TICK_S: Final = 0.02
"""A wait for bytes is over after this long at the latest."""

_LONGEST_DIAL_S = 5.0
_SMALL_READ, _LARGE_READ = 1 << 16, 1 << 20
# Pieces of one system call; the kernel takes 1,024.
_PIECES = 512
_RECORD_BYTES = 1 << 14  # of TLS, at most
_AT_ONCE = struct.pack("ii", 1, 0)
_CLOSED = "connection closed by the server"


class UnreachableError(Exception):
    """There is no connection to be had; the text is `CODE: message`."""


class Line:
    """One connection, up to its bytes on the wire. Nothing here waits, but for `dial` and `read` when it is told to.

    Attributes:
        plug: The socket.
        connection: What the bytes mean.
        tls: Whether they are encrypted.
    """

    def __init__(self, plug: socket.socket, connection: Connection, *, tls: bool) -> None:
        self.plug = plug
        self.connection = connection
        self.tls = tls
        self._read_bytes = _SMALL_READ

    @classmethod
    def dial(cls, endpoint: Endpoint, context: ssl.SSLContext | None, patience_s: float = _LONGEST_DIAL_S) -> Line:
        """Connect, and wait for the peer's first words; each for some seconds at most.

        Args:
            endpoint: Whom to call.
            context: How to encrypt it; None: not at all.
            patience_s: Do not wait for longer than this either.

        Raises:
            UnreachableError: nobody is there, or nobody who speaks HTTP/2.
        """
        patience_s = min(patience_s, _LONGEST_DIAL_S)
        try:
            plug = socket.create_connection((endpoint.host, endpoint.port), timeout=patience_s)
        except (OSError, UnicodeError) as error:
            raise UnreachableError(_unavailable(endpoint, _reason(error))) from None
        try:
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context:
                plug = _encrypted(plug, endpoint, context)
            plug.settimeout(0 if context else None)
            # One system call fewer a wait than a time-out of Python's own, which polls before it reads.
            tick = struct.pack("ll", 0, round(TICK_S * 1e6))
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
            line = cls(plug, Connection(), tls=context is not None)
            line.greet(patience_s)
        except (OSError, ProtocolError) as error:
            plug.close()
            raise UnreachableError(_unavailable(endpoint, _reason(error))) from None
        except BaseException:
            plug.close()
            raise
        return line

    def greet(self, patience_s: float) -> None:
        """Exchange first words with the peer.

        Raises:
            OSError: it says nothing for so long, or hangs up.
            ProtocolError: it speaks something else.
        """
        deadline = time.monotonic() + patience_s
        try:
            self.flush()
        except OSError:
            # What the peer has said before it hung up says more.
            self.read(wait=False)
            raise
        while not self.connection.peer_is_known:
            if not select.select([self], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no HTTP/2 was spoken within {patience_s:g} s")
            self.read(wait=False)
        self.flush()

    def fileno(self) -> int:
        """Of the socket, for waiting."""
        return self.plug.fileno()

    def read(self, *, wait: bool) -> None:
        """Take in what has come.

        Args:
            wait: For a tick at most, until something comes; never for TLS.

        Raises:
            OSError: the connection is broken, or was closed by the peer.
            ProtocolError: what came makes no sense.
        """
        if self.tls:
            self._read_encrypted()
            return
        try:
            data = self.plug.recv(self._read_bytes, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self.take(data)
        if len(data) == self._read_bytes:
            self._read_bytes = _LARGE_READ

    def take(self, data: bytes) -> None:
        """Take in bytes that were read from the socket.

        Raises:
            ConnectionResetError: there are none: the peer has closed the connection.
            ProtocolError: they make no sense.
        """
        if not data:
            raise ConnectionResetError(_CLOSED)
        self.connection.receive(data)

    def flush(self) -> None:
        """Send what the kernel takes of what is to be sent.

        Raises:
            OSError: the connection is broken.
        """
        connection = self.connection
        out = connection.out
        try:
            while out:
                if self.tls:
                    self._send_encrypted(out)
                elif connection.bulky:
                    _drop(out, self.plug.sendmsg(out[:_PIECES], (), socket.MSG_DONTWAIT))
                else:
                    whole = b"".join(out)
                    sent = self.plug.send(whole, socket.MSG_DONTWAIT)
                    out[:] = (whole[sent:],) if sent < len(whole) else ()
            connection.bulky = False
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass

    def send_small(self, streams: Sequence[Stream]) -> bool:
        """Send what is to be sent, where it is little, over TCP, and goes at once; else `flush` is to be called.

        Args:
            streams: Whose requests those are; they are timed from here.
        """
        connection = self.connection
        if connection.bulky or connection.unsent:
            return False
        out = connection.out
        whole = b"".join(out)
        now_ns = time.monotonic_ns()
        for stream in streams:
            stream.sent_ns = now_ns
        try:
            sent = self.plug.send(whole, socket.MSG_DONTWAIT)
        except OSError:
            return False
        if sent < len(whole):
            out[:] = (whole[sent:],)
            return False
        out.clear()
        return True

    def close(self) -> None:
        """Close the socket; what the kernel holds still goes to the peer."""
        self.plug.close()

    def reset(self) -> None:
        """Close the socket so that nothing more goes to the peer, and what it has not read is lost."""
        self.plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.plug.close()

    def _send_encrypted(self, out: list[bytes | memoryview]) -> None:
        """The first pieces, together if they are small, as each call makes a record.

        After a refusal, TLS wants to be given the same bytes again, or more that begin with them.
        """
        count, size = 1, len(out[0])
        while count < len(out) and size + len(out[count]) <= _RECORD_BYTES:
            size += len(out[count])
            count += 1
        if count > 1:
            out[:count] = (b"".join(out[:count]),)
        _drop(out, self.plug.send(out[0]))

    def _read_encrypted(self) -> None:
        """All that TLS has, as the socket does not tell of what was decrypted already."""
        while True:
            try:
                data = self.plug.recv(_SMALL_READ)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self.take(data)


def lost(error: Exception) -> str:
    """What a broken connection means for the requests on it, as `CODE: message`."""
    return describe("UNAVAILABLE", f"the connection is lost: {_reason(error)}")


def _encrypted(plug: socket.socket, endpoint: Endpoint, context: ssl.SSLContext) -> ssl.SSLSocket:
    name = endpoint.tls.server_name if endpoint.tls and endpoint.tls.server_name else endpoint.host
    encrypted = context.wrap_socket(plug, server_hostname=name)
    if encrypted.selected_alpn_protocol() != "h2":
        encrypted.close()
        raise ProtocolError("it does not agree to it (ALPN h2)")
    return encrypted


def _unavailable(endpoint: Endpoint, reason: str) -> str:
    return describe("UNAVAILABLE", f"failed to connect to {endpoint.address}: {reason}")


def _reason(error: Exception) -> str:
    if isinstance(error, ProtocolError):
        return f"the server does not keep to HTTP/2: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLEOFError):
        return _CLOSED
    if isinstance(error, ssl.SSLError):
        _, alert, words = (error.reason or str(error)).rpartition("ALERT_")
        words = words.replace("_", " ").lower()
        return f"the server refused TLS: {words}" if alert else f"the server does not keep to TLS: {words}"
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
