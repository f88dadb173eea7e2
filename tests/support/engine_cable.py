"""Leads to the engine by another way than its own."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from typing_extensions import Self

_ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class Cable:
    """A socket that leads to the engine, until it is cut.

    Args:
        listener: Where it begins.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @classmethod
    def at_file(cls, path: Path) -> Self:
        """One that begins at a socket file."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        return cls(listener)

    @classmethod
    @contextmanager
    def over_tcp(cls) -> Iterator[str]:
        """One that begins at a port of 127.0.0.1, for as long as the context lasts. Yields its DOCKER_HOST."""
        listener = socket.create_server(("127.0.0.1", 0))
        with cls(listener):
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Leave nobody at the other end."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(5)
        for end in self._ends:
            with suppress(OSError):  # its other end was the first
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(_ENGINE)
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=_pass_on, args=(source, target)))
                self._threads[-1].start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # cut
        return
