"""A server of plain sockets in this process, for peers that do what no library lets one do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

Serve = Callable[[socket.socket], None]


class SocketPeer:
    """Leaving the context hangs up on everybody, and raises what went wrong in a thread, but for lost connections.

    Args:
        serve: Serves a connection, in a thread of its own; it is closed afterwards.
        context: How it is encrypted; None: not at all.

    Attributes:
        address: Its own, as `host:port`.
        accepted: How many connections there were so far.
    """

    def __init__(self, serve: Serve, *, context: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._faults: list[Exception] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def refuse(self) -> None:
        """Take no more connections; those that are there stay."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def stop(self) -> None:
        """Hang up on everybody; again is harmless."""
        self.refuse()
        self._threads[0].join(10)
        for sock in self._sockets:
            # One that is closed already cannot be shut down.
            with contextlib.suppress(OSError):
                # That of TLS would have its reader go on in the clear.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(sock)
            thread = threading.Thread(target=self._converse, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _converse(self, sock: socket.socket) -> None:
        try:
            with sock if self._context is None else self._context.wrap_socket(sock, server_side=True) as spoken:
                if spoken is not sock:
                    self._sockets.append(spoken)
                self._serve(spoken)
        except OSError:
            pass
        except Exception as fault:  # noqa: BLE001 (raised in the end)
            self._faults.append(fault)
        finally:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._faults:
            raise self._faults[0]


def reset(sock: socket.socket) -> None:
    """End a connection as a crash does: with a TCP reset, and what was not read is lost."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
