"""A server in this process that speaks HTTP/2 as h2 does, does with each request as it is told, and counts."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping

from h2.settings import SettingCodes
from support.http2_server_side import Asked, ServerSide
from support.socket_peer import SocketPeer

from tuner.load.workload import Plan, Request, Workload
from tuner.options.endpoint import Endpoint, Tls

_READ_BYTES = 1 << 18


class Talk:
    """One connection of the peer.

    Attributes:
        plug: Its socket.
        side: What is said on it.
        number: Which connection it is, from 0.
        count: Requests so far, on this connection.
    """

    def __init__(self, sock: socket.socket, side: ServerSide, number: int) -> None:
        self.socket = sock
        self.side = side
        self.number = number
        self.count = 0

    def flush(self) -> None:
        """Send what is to be sent."""
        self.socket.sendall(self.side.take())


OnRequest = Callable[[Talk, int], None]
"""What to do with the request of a stream that is whole."""


def echo(talk: Talk, stream: int) -> None:
    """Answer with what was asked, but for what was cancelled meanwhile."""
    asked = talk.side.asked.pop(stream)
    if asked.reset is None:
        talk.side.answer(stream, bytes(asked.body[5:]))


def keep_silent(_talk: Talk, _stream: int) -> None:
    """Answer nothing."""


class Http2Peer(SocketPeer):
    """Leaving the context hangs up, and raises where a client has broken the protocol.

    Args:
        on_request: What to do with each request.
        settings: As for `ServerSide`.
        step: As for `ServerSide`.
        room: Window of each connection that it gives at once, beyond what HTTP/2 begins with.
        context: As for `SocketPeer`; it is told to agree to h2.

    Attributes:
        talks: Its connections so far.
    """

    def __init__(
        self,
        on_request: OnRequest = echo,
        *,
        settings: Mapping[SettingCodes, int] | None = None,
        step: int | None = None,
        room: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._on_request = on_request
        self._settings = settings
        self._step = step
        self._room = room
        self.talks: list[Talk] = []
        if context:
            context.set_alpn_protocols(["h2"])
        super().__init__(self._talk, context=context)

    @property
    def count(self) -> int:
        """How many requests have come so far."""
        return sum(talk.count for talk in self.talks)

    @property
    def asked(self) -> list[Asked]:
        """All requests that were not answered by `echo`."""
        return [asked for talk in self.talks for asked in list(talk.side.asked.values())]

    def plan(
        self, *contents: bytes, request_timeout_s: float = 10.0, connections: int = 1, tls: Tls | None = None
    ) -> Plan:
        """How to send it requests with these contents."""
        return plan_for(self.address, *contents, request_timeout_s=request_timeout_s, connections=connections, tls=tls)

    def _talk(self, sock: socket.socket) -> None:
        talk = Talk(sock, ServerSide(self._settings, step=self._step), len(self.talks))
        self.talks.append(talk)
        if self._room:
            talk.side.give(0, self._room)
        talk.flush()
        while data := sock.recv(_READ_BYTES):
            for stream in talk.side.receive(data):
                talk.count += 1
                self._on_request(talk, stream)
            talk.flush()


def plan_for(
    address: str,
    *contents: bytes,
    request_timeout_s: float = 10.0,
    connections: int = 1,
    tls: Tls | None = None,
) -> Plan:
    """How to send requests with these contents to an address."""
    requests = tuple(Request(content) for content in contents or (b"request",))
    workload = Workload("model", (requests,))
    return Plan("wire", Endpoint(address, tls=tls), workload, request_timeout_s, connections)
