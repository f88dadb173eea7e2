"""The web server: uvicorn on a socket of ours, which ends its event streams when it is asked to end."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from tuner.core.errors import JobError

# How long requests may take to end, in seconds, after the service is asked to end.
_GRACE_S = 10
BACKLOG = 512
"""Connections that may wait to be accepted."""


def bound(listen: str) -> socket.socket:
    """A socket that is bound to an address.

    Args:
        listen: `HOST:PORT`; an IPv6 host in brackets. Port 0: a free one.

    Raises:
        JobError: it is no address of this machine, or it is in use.
    """
    host, port = address_of(listen)
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # With its protocol, or asyncio would not set TCP_NODELAY, and small answers would wait 40 ms for an ACK.
        opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        raise JobError(f"--listen: {host!r} is no address of this machine") from None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(place)
    except OSError as error:
        opened.close()
        raise JobError(f"--listen: {listen}: {(error.strerror or str(error)).lower()}") from None
    return opened


def address_of(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; an IPv6 host in brackets.

    Raises:
        JobError: it is no address.
    """
    host, colon, port = listen.strip().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not host.strip("[]"):
        raise JobError(f"--listen: {listen!r} is not an address; write HOST:PORT, such as 127.0.0.1:8100")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise JobError(f"--listen: {listen!r}: write an IPv6 address in brackets, such as [::1]:8100")
    return host.strip("[]"), int(port)


class WebServer(uvicorn.Server):
    """Serves the app until it is asked to end, by `stop`, SIGTERM or Ctrl-C.

    Args:
        app: The app of `create_app`.
        tls: Files of the certificate and its private key; None: no TLS.
        behind_proxy: Whether all requests come from a proxy, whose `X-Forwarded-...` headers are believed.

    Raises:
        JobError: the certificate or its key cannot be used.
    """

    def __init__(self, app: FastAPI, *, tls: tuple[Path, Path] | None = None, behind_proxy: bool = False) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,
            backlog=BACKLOG,
            forwarded_allow_ips="*" if behind_proxy else None,
            lifespan="off",
            log_config=None,
            proxy_headers=behind_proxy,
            server_header=False,
            ssl_certfile=tls[0] if tls else None,
            ssl_keyfile=tls[1] if tls else None,
            timeout_graceful_shutdown=_GRACE_S,
            ws="none",
        )
        try:
            config.load()
        except ssl.SSLError as error:
            raise JobError(f"--tls-cert, --tls-key: cannot be used: {error.reason or error}") from None
        except OSError as error:
            raise JobError(f"--tls-cert, --tls-key: {error.filename or ''}: {error.strerror}") from None
        super().__init__(config)
        self._streams = app.state.streams

    def stop(self) -> None:
        """End, after the requests that are being answered. May be called in any thread."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`."""
        self._streams.close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End by SIGTERM and Ctrl-C, at once after the second one. Unlike uvicorn's, it does not raise them again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
