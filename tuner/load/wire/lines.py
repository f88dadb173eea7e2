"""The connections of a worker: as many as are asked for, and more where the peer's limits leave no room."""

from __future__ import annotations

import contextlib
import select
import ssl
import time

from tuner.load.failures import describe
from tuner.load.pauses import pause_ns
from tuner.load.wire.frames import ProtocolError
from tuner.load.wire.line import TICK_S, Line, UnreachableError, lost
from tuner.load.wire.stream import Stream
from tuner.load.workload import Plan

_MOST_LINES = 256


class Lines:
    """Sends requests over connections, and gathers those that have ended, well or not, in `ended`.

    Args:
        plan: Where to connect to, and each request's deadline.

    Attributes:
        ended: Requests that have ended; the caller's to take.
        timeout_s: Each request's deadline, which may be set anew while none is under way.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.timeout_s = plan.request_timeout_s
        tls = plan.endpoint.tls
        self._context: ssl.SSLContext | None = tls.context("h2") if tls else None
        self._lines: list[Line] = []
        self._turn = 0
        self._dial_again_ns = 0
        self._dial_failures = 0
        self._unreachable = ""
        self.ended: list[Stream] = []

    @property
    def under_way(self) -> int:
        """How many requests are."""
        return sum(len(line.connection.streams) for line in self._lines)

    @property
    def only(self) -> Line | None:
        """The one connection, where there is one and it is plain TCP."""
        lines = self._lines
        return lines[0] if len(lines) == 1 == self._plan.connections and not lines[0].tls else None

    def submit(self, stream: Stream) -> bool:
        """Send a request, with the next `wait`.

        Returns:
            Whether there was room for it; if not, it is still the caller's. Where nobody can be reached, it has ended
            with that error.
        """
        try:
            line = self._line_with_room()
        except UnreachableError as error:
            stream.error = str(error)
            self.ended.append(stream)
            return True
        if line is None:
            return False
        line.connection.send(stream)
        return True

    def wait(self, timeout_s: float) -> None:
        """Send what is to be sent, and take in what comes, for which it waits."""
        lines = self._lines
        self.flush()
        if self.ended:
            timeout_s = 0.0
        if len(lines) == 1 and timeout_s >= TICK_S and not lines[0].connection.out and not lines[0].tls:
            # One system call less than to ask first whether there is something to read.
            self._read(lines[0], wait=True)
        elif lines:
            unsent = [line for line in lines if line.connection.out]
            for line in select.select(lines, unsent, [], timeout_s)[0]:
                self._read(line, wait=False)
        else:
            time.sleep(timeout_s)

    def flush(self) -> None:
        """Send what is to be sent, as far as the kernel takes it."""
        for line in self._lines[:]:
            if line.connection.out:
                try:
                    line.flush()
                except OSError as error:
                    # What had come before it broke is worth having.
                    with contextlib.suppress(OSError, ProtocolError):
                        line.read(wait=False)
                    self.lose(line, error)

    def lose(self, line: Line, error: Exception) -> None:
        """Give up a connection that is broken, and what was under way on it."""
        line.close()
        line.connection.lose(lost(error))
        self._collect(line)

    def take(self, line: Line, data: bytes) -> None:
        """Take in bytes that the caller has read from a connection."""
        try:
            line.take(data)
        except (OSError, ProtocolError) as error:
            self.lose(line, error)
        else:
            self._collect(line)

    def rest(self, descriptor: int) -> None:
        """Answer what the peers ask until there is something to read from a descriptor."""
        while True:
            self.flush()
            unsent = [line for line in self._lines if line.connection.out]
            sources: list[int | Line] = [descriptor, *self._lines]
            for source in select.select(sources, unsent, [])[0]:
                if not isinstance(source, Line):
                    return
                self._read(source, wait=False)

    def expire(self, now_ns: int) -> None:
        """End the requests whose deadline has passed."""
        timeout_ns = round(self.timeout_s * 1e9)
        for line in self._lines[:]:
            late = []
            for stream in line.connection.streams.values():
                if stream.sent_ns + stream.lag_us * 1_000 + timeout_ns > now_ns:
                    break
                late.append(stream)
            for stream in late:
                error = describe("DEADLINE_EXCEEDED", f"no answer in {self.timeout_s:g} s")
                line.connection.cancel(stream, error)
            if late:
                self._collect(line)

    def cancel_all(self) -> None:
        """Give up all that is under way, and connections that are clogged: what comes next would wait behind it."""
        for line in self._lines[:]:
            for stream in list(line.connection.streams.values()):
                line.connection.cancel(stream, "CANCELLED: the offer is over")
            self._collect(line)
        self.flush()
        for line in self._lines[:]:
            if line.connection.out:
                line.reset()
                self._lines.remove(line)
        self.ended.clear()

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines:
            line.close()
        self._lines.clear()

    def _line_with_room(self) -> Line | None:
        """In turn; a new one where there are fewer than asked for, or all are full."""
        lines = self._lines
        if len(lines) == 1 == self._plan.connections and lines[0].connection.has_room:
            return lines[0]
        if len(lines) < self._plan.connections:
            self._add_line()
        line = self._next_with_room()
        if line is None and self._would_another_help():
            self._add_line()
            line = self._next_with_room()
        return line

    def _next_with_room(self) -> Line | None:
        lines = self._lines
        for _ in lines:
            self._turn = (self._turn + 1) % len(lines)
            if lines[self._turn].connection.has_room:
                return lines[self._turn]
        return None

    def _would_another_help(self) -> bool:
        """Not where the peer takes nothing even on a connection that has nothing."""
        return len(self._lines) < _MOST_LINES and all(line.connection.streams for line in self._lines)

    def _add_line(self) -> None:
        """Open a connection; where there are others and none is to be had, they must do."""
        try:
            self._lines.append(self._dial())
        except UnreachableError:
            if not self._lines:
                raise

    def _dial(self) -> Line:
        if time.monotonic_ns() < self._dial_again_ns:
            raise UnreachableError(self._unreachable)
        try:
            line = Line.dial(self._plan.endpoint, self._context, self._plan.request_timeout_s)
        except UnreachableError as error:
            self._unreachable = str(error)
            self._dial_failures += 1
            # Not even the first is retried at once: every request that is due would.
            self._dial_again_ns = time.monotonic_ns() + pause_ns(self._dial_failures + 1)
            raise
        self._dial_failures = 0
        return line

    def _read(self, line: Line, *, wait: bool) -> None:
        try:
            line.read(wait=wait)
        except (OSError, ProtocolError) as error:
            self.lose(line, error)
        else:
            self._collect(line)

    def _collect(self, line: Line) -> None:
        """Take what has ended on a connection, and send elsewhere what it refused."""
        connection = line.connection
        if connection.finished:
            self.ended += connection.finished
            connection.finished.clear()
        if connection.closing and not connection.streams and line in self._lines:
            line.close()
            self._lines.remove(line)
        if connection.refused:
            refused = connection.refused[:]
            connection.refused.clear()
            for stream in refused:
                stream.begin_anew()
                if not self.submit(stream):
                    stream.error = describe("UNAVAILABLE", "the server refused the request, and no connection has room")
                    self.ended.append(stream)
