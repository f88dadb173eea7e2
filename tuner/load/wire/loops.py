"""The two kinds of load, over connections of our own framing, in the worker's only thread."""

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
from tuner.load.wire.line import TICK_S, Line
from tuner.load.wire.lines import Lines
from tuner.load.wire.pattern import Pattern
from tuner.load.wire.stream import PREFIX_BYTES, Framed, Stream

# As often the clocks are told; requests that are late are given up as often.
_TICK_NS: Final = round(TICK_S * 1e9)
# Requests that are due together go out together, but not so many that answers wait for them.
_MOST_AT_ONCE = 64
# More than any server works on at once. What is due beyond that waits here, and is timed from when it was due all the
# same: gRPC's library answers nothing at all while there is always more to read (seen with Triton 2.51, which then took
# minutes to recover, and died of thousands of requests that were cancelled in the end).
_MOST_UNDER_WAY = 1024
# Even of answers without content, fewer than `ledger.MOST_AT_ONCE`.
_SPRINT_BYTES = 1 << 16

_clock = time.monotonic_ns


class Loop(ABC):
    """What both kinds have in common: which request is next, how they are noted, and how it ends.

    Args:
        lines: Over which to send.
        framed: The requests.
        offer: How much.
        ledger: Where to note it.
    """

    def __init__(self, lines: Lines, framed: Sequence[Framed], offer: Offer, ledger: LedgerWriter) -> None:
        self.lines = lines
        self.ledger = ledger
        self._framed = framed
        self._at = offer.first_of(len(framed))
        self._next_tick_ns = 0

    def run(self) -> None:
        """Until the owner says stop, the load is over, or the ledger is full."""
        with contextlib.suppress(Full):
            self.go_on()
        self.end()

    @abstractmethod
    def go_on(self) -> None:
        """Offer the load, and leave what is under way at its end.

        Raises:
            Full: the ledger is.
        """

    def next_request(self) -> Framed:
        """The requests in turn."""
        framed = self._framed[self._at]
        self._at += 1
        if self._at == len(self._framed):
            self._at = 0
        return framed

    def tick(self, now_ns: int, waiting: int = 0) -> None:
        """What is to be done now and then."""
        if now_ns >= self._next_tick_ns:
            self._next_tick_ns = now_ns + _TICK_NS
            self.lines.expire(now_ns)
            self.ledger.tick(now_ns, waiting)

    def note(self, done: Sequence[Stream], now_ns: int) -> None:
        """Put requests that have ended into the ledger."""
        ledger = self.ledger
        for stream in done:
            if stream.error is None and stream.answer is not None:
                stream.error = mismatch(bytes(stream.answer[PREFIX_BYTES:]), stream.framed.request.expected)
            if stream.error is None and not stream.lag_us:
                # What `note` would do, of which almost nothing is left for most requests.
                place = ledger.control[COUNT]
                ledger.sent_ns[place] = stream.sent_ns
                ledger.received[place] = stream.received
                ledger.done_ns[place] = now_ns
                ledger.raise_count(place + 1)
            else:
                outcome = 0 if stream.error is None else ledger.outcome_of(stream.error)
                ledger.note(stream.sent_ns, now_ns, outcome, lag_us=stream.lag_us, received=stream.received)

    def end(self) -> None:
        """Note nothing from now on, wait for what is under way as long as the owner says, and give up the rest."""
        self.ledger.end()
        until_ns = self.ledger.stop_ns
        while self.lines.under_way and _clock() < until_ns:
            self.lines.wait(TICK_S / 4)
        self.lines.cancel_all()


class ClosedLoop(Loop):
    """Keeps a number of requests under way."""

    def __init__(self, lines: Lines, framed: Sequence[Framed], offer: Offer, ledger: LedgerWriter) -> None:
        super().__init__(lines, framed, offer, ledger)
        self._start_ns = offer.start_ns
        self._slots = offer.concurrency or 0
        self._failures = [0] * self._slots
        self._looks_into_answers = any(each.validates for each in framed)
        # Requests that wait until they may be tried: from when, whose, and which.
        self._resting: list[tuple[int, int, Stream]] = []

    def go_on(self) -> None:
        """Until the owner says stop."""
        lines, control = self.lines, self.ledger.control
        time.sleep(max(0, self._start_ns - _clock()) / 1e9)
        for slot in range(self._slots):
            self._send(Stream(self.next_request(), slot, _clock()))
        while not control[STOP_NS]:
            line, pattern = self._plain_line()
            if line and pattern:
                self._sprint(line, pattern)
            else:
                lines.wait(self._patience_s() if self._resting else TICK_S)
            now_ns = _clock()
            if lines.ended:
                done, lines.ended = lines.ended, []
                self.note(done, now_ns)
                self._go_on(done)
            self.tick(now_ns)
            if self._resting:
                self._wake(now_ns)

    def _plain_line(self) -> tuple[Line | None, Pattern | None]:
        """The only connection, and how the answers on it look, as long as nothing is out of the ordinary."""
        line = self.lines.only
        if line is None or self._resting or self._looks_into_answers:
            return None, None
        self.lines.flush()
        return line, line.connection.at_ease

    def _sprint(self, line: Line, pattern: Pattern) -> None:  # noqa: PLR0912, PLR0915 (hot: a call costs more)
        """Take answers that look like the last one, and send on, until anything else happens.

        It does what a turn of `go_on` does, in one piece, and leaves for its end what can wait: what a request costs
        here is what the client costs. With little under way most of that is for memory that the server has driven out
        of the processor's caches since the last answer, so what counts is to touch little.
        """
        lines, connection, ledger, framed, at = self.lines, line.connection, self.ledger, self._framed, self._at
        recv, match, streams, out = line.plug.recv, pattern.match, connection.streams, connection.out
        sent_ns, done_ns, received, control = ledger.sent_ns, ledger.done_ns, ledger.received, ledger.control
        total, size, failures, until_ns = pattern.total, pattern.size, self._failures, self._next_tick_ns
        first = place = control[COUNT]
        last, capacity, now_ns = len(framed) - 1, ledger.capacity, 0
        while now_ns < until_ns and place < capacity and not control[STOP_NS]:
            try:
                data = recv(_SPRINT_BYTES)
            except OSError as error:
                if not isinstance(error, BlockingIOError):  # That only says that a tick has passed.
                    lines.lose(line, error)
                break
            now_ns, start, end = _clock(), 0, len(data)
            renewed = []
            while start < end:
                found = match(data, start)
                if found is None:
                    # Often enough the peer also says how much more it takes.
                    at_update, start = start, connection.take_update(data, start)
                    if start == at_update:
                        break
                    continue
                stream = streams.pop(int.from_bytes(found[1], "big"), None)
                # Part of an answer has come before this one, or it comes before its request has gone: for the parser.
                if stream is None or stream.received or stream.sent_ns >= now_ns:
                    if stream:
                        streams[stream.number] = stream
                    break
                start += total
                sent_ns[place], received[place], done_ns[place] = stream.sent_ns, size, now_ns
                place += 1
                failures[stream.slot] = 0
                each = framed[at]
                at = at + 1 if at < last else 0
                stream.framed, stream.tries, stream.sent_ns = each, 1, now_ns
                renewed.append(stream)
                if each.small and each.size <= connection.window:
                    stream.number = number = connection.number
                    streams[number] = stream
                    connection.number = number + 2
                    connection.window -= each.size
                    name = number.to_bytes(4, "big")
                    out += (each.before, name, each.between, name, each.body)
                else:
                    connection.send(stream)
            control[COUNT] = place
            if start == end and end and line.send_small(renewed):
                continue
            if start < end or not end:
                lines.take(line, data[start:])
            lines.flush()
            if lines.ended or connection.at_ease is not pattern:
                break
        self._at = at
        connection.count((place - first) * size)
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
        if not self.lines.submit(stream):
            heapq.heappush(self._resting, (stream.sent_ns + FIRST_PAUSE_NS, stream.slot, stream))

    def _wake(self, now_ns: int) -> None:
        while self._resting and self._resting[0][0] <= now_ns:
            stream = heapq.heappop(self._resting)[2]
            stream.sent_ns = now_ns
            self._send(stream)

    def _patience_s(self) -> float:
        return max(0.0, min(TICK_S, (self._resting[0][0] - _clock()) / 1e9))


class OpenLoop(Loop):
    """Sends what is due, however little of it has been answered."""

    def __init__(self, lines: Lines, framed: Sequence[Framed], offer: Offer, ledger: LedgerWriter) -> None:
        super().__init__(lines, framed, offer, ledger)
        self._schedule = offer.due_ns()
        self._next_ns = next(self._schedule, None)
        # When requests were due that could not be sent yet.
        self._waiting: deque[int] = deque()

    def go_on(self) -> None:
        """Until the owner says stop, or all that was ever due has ended."""
        lines, ledger = self.lines, self.ledger
        while not ledger.stop_ns:
            self._send_due(_clock())
            lines.wait(self._patience_s())
            now_ns = _clock()
            if lines.ended:
                done, lines.ended = lines.ended, []
                self.note(done, now_ns)
            self.tick(now_ns, len(self._waiting))
            if self._next_ns is None and not self._waiting and not lines.under_way and not lines.ended:
                break

    def _send_due(self, now_ns: int) -> None:
        room = _MOST_UNDER_WAY - self.lines.under_way
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
        return self.lines.submit(Stream(self.next_request(), 0, due_ns, (now_ns - due_ns) // 1_000))

    def _patience_s(self) -> float:
        if self._next_ns is None:
            return TICK_S / 2
        return max(0.0, min(TICK_S / 2, (self._next_ns - _clock()) / 1e9))
