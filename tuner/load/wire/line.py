"""A connection and its socket: TCP, or TLS over it."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from typing import Final

from tuner.load.failures import describe
from tuner.load.wire.connection import Connection
from tuner.load.wire.frames import ProtocolError
from tuner.servers.endpoint import Endpoint

TICK_S: Final = 0.02
"""A wait for bytes is over after this long at the latest."""

_CONNECT_S = 5.0
_SMALL_READ, _LARGE_READ = 1 << 16, 1 << 20
# Pieces of one system call; the kernel takes 1,024.
_PIECES = 512


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
    def dial(cls, endpoint: Endpoint, context: ssl.SSLContext | None) -> Line:
        """Connect, and wait for the peer's first words.

        Raises:
            UnreachableError: nobody is there, or nobody who speaks HTTP/2.
        """
        deadline = time.monotonic() + _CONNECT_S
        try:
            plug = socket.create_connection((endpoint.host, endpoint.port), timeout=_CONNECT_S)
        except OSError as error:
            raise UnreachableError(_unavailable(endpoint, error.strerror or str(error))) from None
        try:
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context:
                plug = _encrypted(plug, endpoint, context)
            plug.settimeout(0 if context else None)
            # One system call fewer a wait than a time-out of Python's own, which polls before it reads.
            tick = struct.pack("ll", 0, round(TICK_S * 1e6))
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
            line = cls(plug, Connection(), tls=context is not None)
            line.greet(deadline)
        except (OSError, ProtocolError) as error:
            plug.close()
            raise UnreachableError(_unavailable(endpoint, _reason(error))) from None
        except BaseException:
            plug.close()
            raise
        return line

    def greet(self, deadline: float) -> None:
        """Exchange first words with the peer.

        Raises:
            OSError: it says nothing until the deadline, or hangs up.
            ProtocolError: it speaks something else.
        """
        self.flush()
        while not self.connection.peer_is_known:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no HTTP/2 was spoken within {_CONNECT_S:g} s")
            select.select([self], [], [], left_s)
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
            raise ConnectionResetError("connection closed by the server")
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
                if connection.bulky and not self.tls:
                    _drop(out, self.plug.sendmsg(out[:_PIECES], (), socket.MSG_DONTWAIT))
                    continue
                # After a refusal, TLS wants to be given the same bytes again.
                whole = b"".join(out)
                out[:] = (whole,)
                sent = self.plug.send(whole, 0 if self.tls else socket.MSG_DONTWAIT)
                if sent < len(whole):
                    out[0] = whole[sent:]
                else:
                    out.clear()
            connection.bulky = False
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass

    def close(self) -> None:
        """Close the socket."""
        self.plug.close()

    def _read_encrypted(self) -> None:
        """All that TLS has, as the socket does not tell of what was decrypted already."""
        while True:
            try:
                data = self.plug.recv(_SMALL_READ)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self.take(data)


def tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """How connections to an endpoint are encrypted; None: not at all.

    Raises:
        OSError: a certificate or key cannot be read.
    """
    if endpoint.tls is None:
        return None
    context = ssl.create_default_context(cafile=endpoint.tls.ca)
    context.set_alpn_protocols(["h2"])
    if endpoint.tls.certificate:
        context.load_cert_chain(endpoint.tls.certificate, endpoint.tls.key)
    return context


def lost(error: Exception) -> str:
    """What a broken connection means for the requests on it, as `CODE: message`."""
    return describe("UNAVAILABLE", f"the connection is lost: {_reason(error)}")


def _encrypted(plug: socket.socket, endpoint: Endpoint, context: ssl.SSLContext) -> ssl.SSLSocket:
    name = endpoint.tls.server_name if endpoint.tls and endpoint.tls.server_name else endpoint.host
    encrypted = context.wrap_socket(plug, server_hostname=name)
    if encrypted.selected_alpn_protocol() != "h2":
        encrypted.close()
        raise ProtocolError("the server does not agree to HTTP/2 (ALPN h2)")
    return encrypted


def _unavailable(endpoint: Endpoint, reason: str) -> str:
    return describe("UNAVAILABLE", f"failed to connect to {endpoint.address}: {reason}")


def _reason(error: Exception) -> str:
    if isinstance(error, ProtocolError):
        return f"the server does not keep to HTTP/2: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
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
