"""The service over a real socket, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from tuner.service.app import create_app
from tuner.service.operations import Service
from tuner.service.web_server import WebServer, bound


@dataclass
class Served:
    """A service at an address."""

    url: str
    port: int
    app: FastAPI
    server: WebServer
    thread: threading.Thread

    def stop(self) -> None:
        """End it, and wait for its end."""
        self.server.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def served(service: Service, *, tls: tuple[Path, Path] | None = None, port: int = 0) -> Iterator[Served]:
    """Serve a service at a port of the loopback address; 0: a free one."""
    app = create_app(service)
    server = WebServer(app, tls=tls)
    socket = bound(f"127.0.0.1:{port}")
    port = socket.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    serving = Served(f"http{'s' if tls else ''}://127.0.0.1:{port}", port, app, server, thread)
    try:
        yield serving
    finally:
        serving.stop()
        socket.close()
