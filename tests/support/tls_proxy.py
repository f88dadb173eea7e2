"""Takes TLS off connections to a server that speaks without, as a proxy before a Triton does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def tls_proxy(target: str, context: ssl.SSLContext) -> Iterator[str]:
    """Serves on a port of its own, in a thread, until the context is left.

    Args:
        target: `host:port` in the clear.
        context: With the server's certificate.

    Yields:
        `host:port` over TLS.
    """
    started: list[str] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(lambda *ends: _forward(target, *ends), "127.0.0.1", 0, ssl=context)
        started.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        ready.set()
        await stop.wait()
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        # Sockets are closed by the loop, in its next rounds, of which TLS takes one more.
        for _ in range(3):
            await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


async def _forward(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, port = target.split(":")
    inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
    try:
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
    finally:
        for end in (writer, inner_writer):
            end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 18):
            writer.write(piece)
            await writer.drain()
    writer.close()
