"""A web server in this process that answers as it is told to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from typing_extensions import Self


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        line: Verb and path.
        headers: Names as they came; of several with one name, the last.
        body: Whole.
        client: Address and port, so the connection.
    """

    line: str
    headers: Mapping[str, str]
    body: bytes
    client: tuple[str, int]


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: The number.
        body: Whole.
        headers: Beside those of every answer.
        raw: Sent in the place of all that, and the connection is closed then.
        hang_up: Close the connection afterwards, though nothing has said so.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    hang_up: bool = False


class WebPeer:
    """Leaving the context stops it.

    Args:
        answer: What it says.
    """

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        self.asked: list[Asked] = []
        self._connections: set[socket.socket] = set()
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                asked = Asked(f"{self.command} {self.path}", dict(self.headers), body, self.client_address)
                peer.asked.append(asked)
                peer._connections.add(self.connection)
                reply = answer(asked)
                if reply.raw is not None:
                    self.wfile.write(reply.raw)
                else:
                    self.send_response(reply.status)
                    for name, value in {"content-length": str(len(reply.body)), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(reply.body)
                self.close_connection = self.close_connection or reply.hang_up or reply.raw is not None

            do_POST = do_GET  # noqa: N815 (the library calls it)
            do_HEAD = do_GET  # noqa: N815 (the same)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def hang_up(self) -> None:
        """End all connections."""
        while self._connections:
            # Some have ended already.
            with contextlib.suppress(OSError):
                self._connections.pop().shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
