"""Closed and open loop over the connection pool, in the only thread of a worker."""

from __future__ import annotations

import contextlib
import heapq
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Final

from tuner.load.drivers import Offer
from tuner.load.ledger import COUNT, STOP_NS, Full, LedgerWriter
from tuner.load.pauses import FIRST_PAUSE_NS, pause_ns
from tuner.load.validation import mismatch
from tuner.load.wire.connection import TICK_S, Connection
from tuner.load.wire.pattern import Pattern
from tuner.load.wire.pool import ConnectionPool
from tuner.load.wire.stream import PREFIX_BYTES, Framed, Stream

# How often the ledger's clocks are updated, and requests past their deadline are cancelled.
_TICK_NS: Final = round(TICK_S * 1e9)
# Requests that are due together are sent together, but at most this many, so that answers do not wait.
_MOST_AT_ONCE = 64
# More than any server works on at once. Further due requests wait here, and are timed from their due time. Without this
# limit, gRPC's library in the server answers nothing while there is more to read. Triton 2.51 then took minutes to
# recover, and crashed when thousands of requests were cancelled.
_MOST_UNDER_WAY = 1024
# Bytes to read at once: fewer than `ledger.MOST_AT_ONCE` answers, even if these have no content.
_SPRINT_BYTES = 1 << 16

_clock = time.monotonic_ns


class Loop(ABC):
    """The base of both loops: chooses the next request, records requests, and ends the load.

    Args:
        pool: The connections to send over.
        framed: The requests, sent in turn.
        offer: The load to offer.
        ledger: Where requests are recorded.
    """

    def __init__(self, pool: ConnectionPool, framed: Sequence[Framed], offer: Offer, ledger: LedgerWriter) -> None:
        self.pool = pool
        self.ledger = ledger
        self._framed = framed
        self._at = offer.first_of(len(framed))
        self._next_tick_ns = 0

    def run(self) -> None:
        """Offer the load until the owner stops it, it is over, or the ledger is full."""
        with contextlib.suppress(Full):
            self.go_on()
        self.end()

    @abstractmethod
    def go_on(self) -> None:
        """Offer the load, and return with requests still under way.

        Raises:
            Full: the ledger is full.
        """

    def next_request(self) -> Framed:
        """The next request, in turn."""
        framed = self._framed[self._at]
        self._at += 1
        if self._at == len(self._framed):
            self._at = 0
        return framed

    def tick(self, now_ns: int, waiting: int = 0) -> None:
        """Every `TICK_S`, cancel late requests and update the ledger's clocks."""
        if now_ns >= self._next_tick_ns:
            self._next_tick_ns = now_ns + _TICK_NS
            self.pool.expire(now_ns)
            self.ledger.tick(now_ns, waiting)

    def note(self, done: Sequence[Stream], now_ns: int) -> None:
        """Record requests that have ended in the ledger."""
        ledger = self.ledger
        for stream in done:
            if stream.error is None and stream.answer is not None:
                stream.error = mismatch(bytes(stream.answer[PREFIX_BYTES:]), stream.framed.request.expected)
            if stream.error is None and not stream.lag_us:
                # The same as `note`, shortened for successful requests.
                place = ledger.control[COUNT]
                ledger.sent_ns[place] = stream.sent_ns
                ledger.received[place] = stream.received
                ledger.done_ns[place] = now_ns
                ledger.raise_count(place + 1)
            else:
                outcome = 0 if stream.error is None else ledger.outcome_of(stream.error)
                ledger.note(stream.sent_ns, now_ns, outcome, lag_us=stream.lag_us, received=stream.received)

    def end(self) -> None:
        """Stop recording, let requests under way end until the owner's deadline, then cancel the rest."""
        self.ledger.end()
        until_ns = self.ledger.stop_ns
        while self.pool.under_way and _clock() < until_ns:
            self.pool.wait(TICK_S / 4)
        self.pool.cancel_all()


class ClosedLoop(Loop):
    """Keeps a fixed number of requests under way."""

    def __init__(self, pool: ConnectionPool, framed: Sequence[Framed], offer: Offer, ledger: LedgerWriter) -> None:
        super().__init__(pool, framed, offer, ledger)
        self._start_ns = offer.start_ns
        self._slots = offer.concurrency or 0
        self._failures = [0] * self._slots
        self._looks_into_answers = any(request.validates for request in framed)
        # A heap of requests that pause after failures: (retry at, in ns; slot; request).
        self._resting: list[tuple[int, int, Stream]] = []

    def go_on(self) -> None:
        """Offer the load until the owner stops it."""
        pool, control = self.pool, self.ledger.control
        time.sleep(max(0, self._start_ns - _clock()) / 1e9)
        for slot in range(self._slots):
            self._send(Stream(self.next_request(), slot, _clock()))
        while not control[STOP_NS]:
            connection, pattern = self._plain_connection()
            if connection and pattern:
                self._sprint(connection, pattern)
            else:
                pool.wait(self._patience_s() if self._resting else TICK_S)
            now_ns = _clock()
            if pool.ended:
                done, pool.ended = pool.ended, []
                self.note(done, now_ns)
                self._go_on(done)
            self.tick(now_ns)
            if self._resting:
                self._wake(now_ns)

    def _plain_connection(self) -> tuple[Connection | None, Pattern | None]:
        """The only connection and the pattern of its answers, if it is in its usual state; else None."""
        connection = self.pool.only
        if connection is None or self._resting or self._looks_into_answers:
            return None, None
        self.pool.flush()
        return connection, connection.http2.at_ease

    def _sprint(self, connection: Connection, pattern: Pattern) -> None:  # noqa: PLR0912, PLR0915 (hot path: no calls)
        """Process answers that match the pattern, and send the next requests, until anything else happens.

        This is a turn of `go_on` in one function, which postpones what can wait: its cost per request is the client's
        cost. With few requests under way, most of that cost is memory that the server has displaced from the
        processor's caches since the last answer. So the function touches little memory.
        """
        pool, http2, ledger, framed, at = self.pool, connection.http2, self.ledger, self._framed, self._at
        recv, match, streams, out = connection.socket.recv, pattern.match, http2.streams, http2.out
        sent_ns, done_ns, received, control = ledger.sent_ns, ledger.done_ns, ledger.received, ledger.control
        total, size, failures, until_ns = pattern.total, pattern.size, self._failures, self._next_tick_ns
        first = place = control[COUNT]
        last, capacity, now_ns = len(framed) - 1, ledger.capacity, 0
        while now_ns < until_ns and place < capacity and not control[STOP_NS]:
            try:
                data = recv(_SPRINT_BYTES)
            except OSError as error:
                if not isinstance(error, BlockingIOError):  # BlockingIOError: no bytes within a tick.
                    pool.lose(connection, error)
                break
            now_ns, start, end = _clock(), 0, len(data)
            renewed = []
            while start < end:
                answer = match(data, start)
                if answer is None:
                    # The peer often sends WINDOW_UPDATE with an answer.
                    at_update, start = start, http2.take_update(data, start)
                    if start == at_update:
                        break
                    continue
                stream = streams.pop(int.from_bytes(answer[1], "big"), None)
                # A part of the answer has arrived before, or the answer precedes its request: left to the parser.
                if stream is None or stream.received or stream.sent_ns >= now_ns:
                    if stream:
                        streams[stream.number] = stream
                    break
                start += total
                sent_ns[place], received[place], done_ns[place] = stream.sent_ns, size, now_ns
                place += 1
                failures[stream.slot] = 0
                request = framed[at]
                at = at + 1 if at < last else 0
                stream.framed, stream.tries, stream.sent_ns = request, 1, now_ns
                renewed.append(stream)
                if request.small and request.size <= http2.window:
                    stream.number = number = http2.number
                    streams[number] = stream
                    http2.number = number + 2
                    http2.window -= request.size
                    name = number.to_bytes(4, "big")
                    out += (request.before, name, request.between, name, request.body)
                else:
                    http2.send(stream)
            control[COUNT] = place
            if start == end and end and connection.send_small(renewed):
                continue
            if start < end or not end:
                pool.take(connection, data[start:])
            pool.flush()
            if pool.ended or http2.at_ease is not pattern:
                break
        self._at = at
        http2.count((place - first) * size)
        ledger.raise_count(place)

    def _go_on(self, done: list[Stream]) -> None:
        """Send the next request of each slot."""
        now_ns = _clock()
        for stream in done:
            slot = stream.slot
            if stream.error is None:
                self._failures[slot] = 0
            else:
                self._failures[slot] += 1
            stream.renew(self.next_request(), now_ns)
            if pause := pause_ns(self._failures[slot]):
                heapq.heappush(self._resting, (now_ns + pause, slot, stream))
            else:
                self._send(stream)

    def _send(self, stream: Stream) -> None:
        if not self.pool.submit(stream):
            heapq.heappush(self._resting, (stream.sent_ns + FIRST_PAUSE_NS, stream.slot, stream))

    def _wake(self, now_ns: int) -> None:
        while self._resting and self._resting[0][0] <= now_ns:
            stream = heapq.heappop(self._resting)[2]
            stream.sent_ns = now_ns
            self._send(stream)

    def _patience_s(self) -> float:
        return max(0.0, min(TICK_S, (self._resting[0][0] - _clock()) / 1e9))


class OpenLoop(Loop):
    """Sends requests when they are due, whether or not earlier ones have been answered."""

    def __init__(self, pool: ConnectionPool, framed: Sequence[Framed], offer: Offer, ledger: LedgerWriter) -> None:
        super().__init__(pool, framed, offer, ledger)
        self._schedule = offer.due_ns()
        self._next_ns = next(self._schedule, None)
        # The due times, in ns, of requests that could not be sent yet.
        self._waiting: deque[int] = deque()

    def go_on(self) -> None:
        """Offer the load until the owner stops it, or all scheduled requests have ended."""
        pool, ledger = self.pool, self.ledger
        while not ledger.stop_ns:
            self._send_due(_clock())
            pool.wait(self._patience_s())
            now_ns = _clock()
            if pool.ended:
                done, pool.ended = pool.ended, []
                self.note(done, now_ns)
            self.tick(now_ns, len(self._waiting))
            if self._next_ns is None and not self._waiting and not pool.under_way and not pool.ended:
                break

    def _send_due(self, now_ns: int) -> None:
        room = _MOST_UNDER_WAY - self.pool.under_way
        while self._waiting and room > 0 and self._send(self._waiting[0], now_ns):
            self._waiting.popleft()
            room -= 1
        for _ in range(_MOST_AT_ONCE):
            if self._next_ns is None or self._next_ns > now_ns:
                return
            if self._waiting or room <= 0 or not self._send(self._next_ns, now_ns):
                self._waiting.append(self._next_ns)
            room -= 1
            self._next_ns = next(self._schedule, None)

    def _send(self, due_ns: int, now_ns: int) -> bool:
        return self.pool.submit(Stream(self.next_request(), 0, due_ns, (now_ns - due_ns) // 1_000))

    def _patience_s(self) -> float:
        if self._next_ns is None:
            return TICK_S / 2
        return max(0.0, min(TICK_S / 2, (self._next_ns - _clock()) / 1e9))
