"""Stands between a client and a server, and counts what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from tuner.load.engine import WorkerEngine


class Relay:
    """Passes on what comes to its address, both ways. Leaving the context ends all connections.

    Attributes:
        address: Its own, as `host:port`.
        sent: Bytes that clients sent so far.
        received: Bytes that clients got so far.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self.received = 0
        self._start(self._accept)

    def cut(self) -> None:
        """End all connections; new ones may come."""
        ends, self._ends = self._ends, []
        for end in ends:
            # One that has ended already cannot be ended.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._ends += [client, server]
            self._start(self._pump, client, server)
            self._start(self._pump, server, client)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        upward = sink.getpeername() == self._target
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if upward:
                    self.sent += len(data)
                else:
                    self.received += len(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)


def sockets_of(engine: WorkerEngine) -> set[str]:
    """The sockets of its one worker, which closes those of whose end it has heard."""
    (worker,) = engine._workers
    found = set[str]()
    for entry in Path(f"/proc/{worker._process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}
