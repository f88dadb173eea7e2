"""The connection pool of a worker: the requested connections, and more if the server limits streams."""

from __future__ import annotations

import contextlib
import select
import ssl
import time

from tuner.load.failures import describe
from tuner.load.pauses import pause_ns
from tuner.load.wire.connection import TICK_S, Connection, UnreachableError, lost
from tuner.load.wire.frames import ProtocolError
from tuner.load.wire.stream import Stream
from tuner.load.workload import Plan

_MOST_CONNECTIONS = 256


class ConnectionPool:
    """Sends requests over connections, and collects those that have ended, successful or not, in `ended`.

    Args:
        plan: The endpoint, the number of connections, and the deadline of a request.

    Attributes:
        ended: Requests that have ended; the caller empties it.
        timeout_s: Deadline of each request, in seconds; may be changed while none is under way.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.timeout_s = plan.request_timeout_s
        tls = plan.endpoint.tls
        self._context: ssl.SSLContext | None = tls.context("h2") if tls else None
        self._connections: list[Connection] = []
        self._turn = 0
        self._connect_again_ns = 0
        self._connect_failures = 0
        self._unreachable = ""
        self.ended: list[Stream] = []

    @property
    def under_way(self) -> int:
        """Number of requests under way."""
        return sum(len(connection.http2.streams) for connection in self._connections)

    @property
    def only(self) -> Connection | None:
        """The only connection, if there is exactly one and it is plain TCP; else None."""
        connections = self._connections
        return connections[0] if len(connections) == 1 == self._plan.connections and not connections[0].tls else None

    def submit(self, stream: Stream) -> bool:
        """Queue a request, to be sent by the next `wait`.

        Returns: Whether a connection had room for it; else the caller keeps it. If the server cannot be reached, the
        request ends with that error.
        """
        try:
            connection = self._connection_with_room()
        except UnreachableError as error:
            stream.error = str(error)
            self.ended.append(stream)
            return True
        if connection is None:
            return False
        connection.http2.send(stream)
        return True

    def wait(self, timeout_s: float) -> None:
        """Send pending bytes, then wait up to `timeout_s` for answers, and process them."""
        connections = self._connections
        self.flush()
        if self.ended:
            timeout_s = 0.0
        if len(connections) == 1 and timeout_s >= TICK_S and not connections[0].http2.out and not connections[0].tls:
            # One system call less than `select` and `recv`.
            self._read(connections[0], wait=True)
        elif connections:
            unsent = [connection for connection in connections if connection.http2.out]
            for connection in select.select(connections, unsent, [], timeout_s)[0]:
                self._read(connection, wait=False)
        else:
            time.sleep(timeout_s)

    def flush(self) -> None:
        """Send pending bytes, as many as the kernel takes."""
        for connection in self._connections[:]:
            if connection.http2.out:
                try:
                    connection.flush()
                except OSError as error:
                    # Answers that arrived before it broke still count.
                    with contextlib.suppress(OSError, ProtocolError):
                        connection.read(wait=False)
                    self.lose(connection, error)

    def lose(self, connection: Connection, error: Exception) -> None:
        """Close a broken connection, and end its requests with an error."""
        connection.close()
        connection.http2.lose(lost(error))
        self._collect(connection)

    def take(self, connection: Connection, data: bytes) -> None:
        """Process bytes that the caller has read from a connection."""
        try:
            connection.take(data)
        except (OSError, ProtocolError) as error:
            self.lose(connection, error)
        else:
            self._collect(connection)

    def rest(self, descriptor: int) -> None:
        """Keep connections alive (answer pings) until a descriptor is readable."""
        while True:
            self.flush()
            unsent = [connection for connection in self._connections if connection.http2.out]
            sources: list[int | Connection] = [descriptor, *self._connections]
            for source in select.select(sources, unsent, [])[0]:
                if not isinstance(source, Connection):
                    return
                self._read(source, wait=False)

    def expire(self, now_ns: int) -> None:
        """End the requests whose deadline has passed, at a time of the monotonic clock, in ns."""
        timeout_ns = round(self.timeout_s * 1e9)
        for connection in self._connections[:]:
            late = []
            for stream in connection.http2.streams.values():
                if stream.sent_ns + stream.lag_us * 1_000 + timeout_ns > now_ns:
                    break
                late.append(stream)
            for stream in late:
                error = describe("DEADLINE_EXCEEDED", f"no answer within {self.timeout_s:g} s")
                connection.http2.cancel(stream, error)
            if late:
                self._collect(connection)

    def cancel_all(self) -> None:
        """Cancel all requests under way, and reset connections with unsent bytes, which would delay later requests."""
        for connection in self._connections[:]:
            for stream in list(connection.http2.streams.values()):
                connection.http2.cancel(stream, "CANCELLED: the load has ended")
            self._collect(connection)
        self.flush()
        for connection in self._connections[:]:
            if connection.http2.out:
                connection.reset()
                self._connections.remove(connection)
        self.ended.clear()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _connection_with_room(self) -> Connection | None:
        """The next connection in turn that has room; a new one if fewer than requested exist, or all are full."""
        connections = self._connections
        if len(connections) == 1 == self._plan.connections and connections[0].http2.has_room:
            return connections[0]
        if len(connections) < self._plan.connections:
            self._add_connection()
        connection = self._next_with_room()
        if connection is None and self._would_another_help():
            self._add_connection()
            connection = self._next_with_room()
        return connection

    def _next_with_room(self) -> Connection | None:
        connections = self._connections
        for _ in connections:
            self._turn = (self._turn + 1) % len(connections)
            if connections[self._turn].http2.has_room:
                return connections[self._turn]
        return None

    def _would_another_help(self) -> bool:
        """Whether a new connection could have room; false if a connection without requests has none."""
        return len(self._connections) < _MOST_CONNECTIONS and all(
            connection.http2.streams for connection in self._connections
        )

    def _add_connection(self) -> None:
        """Open a connection. A failure is an error only if there is no other connection."""
        try:
            self._connections.append(self._connect())
        except UnreachableError:
            if not self._connections:
                raise

    def _connect(self) -> Connection:
        if time.monotonic_ns() < self._connect_again_ns:
            raise UnreachableError(self._unreachable)
        try:
            connection = Connection.connect(self._plan.endpoint, self._context, self._plan.request_timeout_s)
        except UnreachableError as error:
            self._unreachable = str(error)
            self._connect_failures += 1
            # After a pause, so that not every due request tries to connect.
            self._connect_again_ns = time.monotonic_ns() + pause_ns(self._connect_failures + 1)
            raise
        self._connect_failures = 0
        return connection

    def _read(self, connection: Connection, *, wait: bool) -> None:
        try:
            connection.read(wait=wait)
        except (OSError, ProtocolError) as error:
            self.lose(connection, error)
        else:
            self._collect(connection)

    def _collect(self, connection: Connection) -> None:
        """Collect the requests that ended on a connection, and send refused ones over another."""
        http2 = connection.http2
        if http2.finished:
            self.ended += http2.finished
            http2.finished.clear()
        if http2.closing and not http2.streams and connection in self._connections:
            connection.close()
            self._connections.remove(connection)
        if http2.refused:
            refused = http2.refused[:]
            http2.refused.clear()
            for stream in refused:
                stream.begin_anew()
                if not self.submit(stream):
                    stream.error = describe(
                        "UNAVAILABLE", "the server refused the request, and no other connection has room"
                    )
                    self.ended.append(stream)
