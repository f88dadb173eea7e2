"""One offer on an asyncio loop: a closed or an open loop, whose requests are recorded in the ledger."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tuner.load.aio.alarm import Alarm
from tuner.load.aio.caller import Caller, Outcome, too_late
from tuner.load.aio.sequencing import RequestSource, RequestSupply
from tuner.load.drivers import Offer
from tuner.load.ledger import LedgerWriter
from tuner.load.pauses import pause_ns
from tuner.load.workload import Plan, Request

# Period of checks for the stop time and for deadlines, in s.
_LOOK_S = 0.02
# Longest time to cancel requests, in s.
_PATIENCE_S = 5.0
# Most due requests to queue at once, so that sending is not delayed by queueing.
_MOST_AT_ONCE = 16

_OK = 0


@dataclass(frozen=True)
class _Seat:
    """A slot with at most one request under way, and the source of its requests."""

    slot: int
    source: RequestSource


class AsyncioOffer:
    """Offers a load once; created on the running loop.

    Args:
        plan: The requests, and where to send them.
        offer: The load.
        ledger: The ledger, which also has the stop time.
        supply: The sources of requests.
        caller: The caller that sends them.
    """

    def __init__(self, plan: Plan, offer: Offer, ledger: LedgerWriter, supply: RequestSupply, caller: Caller) -> None:
        self._offer = offer
        self._ledger = ledger
        self._supply = supply
        self._caller = caller
        self._decoupled = plan.workload.decoupled
        timeout_s = offer.request_timeout_s or plan.request_timeout_s
        self._timeout_ns = round(timeout_s * 1e9)
        self._too_late = Outcome(too_late(timeout_s))
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._loop)
        self._open = True
        self._leaving = False
        self._closed = self._loop.create_future()
        # Set when no task is left, or a task failed.
        self._settled = self._loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        # Deadlines by task, in ascending order, as all requests have the same time-out.
        self._deadlines: dict[asyncio.Task[Any], int] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._free: deque[_Seat] = deque()
        self._seats = 0
        self._waiting: deque[int] = deque()

    async def hold(self) -> None:
        """See `Driver.offer`.

        Raises:
            Full: the ledger is full.
            OwnerGoneError: the owner has ended.
        """
        try:
            await self._alarm.until(self._offer.start_ns)
            if self._offer.concurrency is None:
                self._spawn(self._keep_the_schedule())
            else:
                for _ in range(self._offer.concurrency):
                    self._spawn(self._keep_one_under_way(self._new_seat()))
            while self._look():
                await asyncio.wait({self._settled}, timeout=_LOOK_S)
        finally:
            self._leaving = True
            await self._cancel_all()
            self._alarm.close()

    def _look(self) -> bool:
        """Check stop time and deadlines, and update the ledger. Returns whether to go on."""
        if self._settled.done():
            self._settled.result()
            self._settled = self._loop.create_future()
        stop_ns = self._ledger.stop_ns
        if stop_ns or not self._tasks:
            self._end()
        now_ns = time.monotonic_ns()
        if self._open:
            self._ledger.tick(now_ns, len(self._waiting))
        elif not self._tasks or (stop_ns and now_ns >= stop_ns):
            return False
        self._expire(now_ns)
        return True

    def _end(self) -> None:
        """Stop recording, and end open sequences; may be repeated."""
        if not self._open:
            return
        self._open = False
        self._ledger.end()
        self._closed.set_result(None)
        self._waiting.clear()
        for seat in self._free:
            self._spawn(self._finish(seat))

    async def _keep_one_under_way(self, seat: _Seat) -> None:
        """One slot of a closed loop."""
        failures = 0
        while self._open:
            sent_ns = time.monotonic_ns()
            outcome = await self._call(seat, seat.source.next())
            self._note(outcome, sent_ns)
            failures = failures + 1 if outcome.error else 0
            if self._open and (pause := pause_ns(failures)):
                await asyncio.wait({self._closed}, timeout=pause / 1e9)
        await self._finish(seat)

    async def _keep_the_schedule(self) -> None:
        """An open loop: send requests that are due, or queue them if no slot is free."""
        schedule = self._offer.due_ns()
        due_ns = next(schedule, None)
        while self._open:
            now_ns = time.monotonic_ns()
            for _ in range(_MOST_AT_ONCE):
                if due_ns is None or due_ns > now_ns:
                    break
                self._waiting.append(due_ns)
                due_ns = next(schedule, None)
            if self._send_what_waits():
                # One turn of the loop for each request: grpc.aio may deliver only one answer a turn, and answers must
                # not wait until all due requests are sent.
                await asyncio.sleep(0)
            elif due_ns is None:
                return
            else:
                await self._alarm.until(due_ns)

    def _send_what_waits(self) -> bool:
        """Send the oldest queued request, if a slot is free. Returns whether it was sent."""
        if not self._waiting or not (seat := self._take_seat()):
            return False
        self._spawn(self._send_when_due(seat, self._waiting.popleft()))
        return True

    async def _send_when_due(self, seat: _Seat, due_ns: int) -> None:
        """One request of an open loop."""
        lag_us = (time.monotonic_ns() - due_ns) // 1_000
        self._note(await self._call(seat, seat.source.next()), due_ns, lag_us)
        if self._open:
            self._free.append(seat)
            if self._supply.live is not None:
                self._send_what_waits()
        else:
            await self._finish(seat)

    def _take_seat(self) -> _Seat | None:
        """The slot that has been free for longest, so that no sequence idles for long; None: all are taken."""
        if self._supply.live is not None and self._seats < self._supply.live:
            return self._new_seat()
        if self._free:
            return self._free.popleft()
        return self._new_seat() if self._supply.live is None else None

    def _new_seat(self) -> _Seat:
        self._seats += 1
        return _Seat(self._seats - 1, self._supply.source())

    async def _finish(self, seat: _Seat) -> None:
        """End the slot's open sequence, if any."""
        request = seat.source.closing()
        if request is not None:
            await self._call(seat, request)

    async def _call(self, seat: _Seat, request: Request) -> Outcome:
        """Send one request, with its deadline."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task")
        self._deadlines[task] = time.monotonic_ns() + self._timeout_ns
        try:
            outcome = await self._caller.call(seat.slot, request)
        except asyncio.CancelledError:
            if self._leaving or task not in self._expired:
                raise
            if sys.version_info >= (3, 11):
                task.uncancel()
            outcome = self._too_late
        finally:
            del self._deadlines[task]
            self._expired.discard(task)
        if outcome.error:
            seat.source.failed()
        return outcome

    def _expire(self, now_ns: int) -> None:
        """Cancel the requests that have passed their deadline."""
        for task, deadline_ns in self._deadlines.items():
            if deadline_ns > now_ns:
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()

    def _note(self, outcome: Outcome, sent_ns: int, lag_us: int = 0) -> None:
        done_ns = time.monotonic_ns()
        if self._ledger.stop_ns:
            self._end()
        if not self._open:
            return
        if self._decoupled:
            times_ns = outcome.responses_ns
            gaps_us = [(later - earlier) // 1_000 for earlier, later in pairwise(times_ns)]
            self._ledger.note_responses(times_ns[0] if times_ns else done_ns, len(times_ns), gaps_us)
        number = self._ledger.outcome_of(outcome.error) if outcome.error else _OK
        self._ledger.note(sent_ns, done_ns, number, lag_us=lag_us, received=outcome.received)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._leaving or task.cancelled() or self._settled.done():
            return
        if error := task.exception():
            self._settled.set_exception(error)
        elif not self._tasks:
            self._settled.set_result(None)

    async def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_PATIENCE_S)
