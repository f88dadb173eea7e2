"""Triton's dynamic batcher in real time: the rules of `tuner.search.twin.batcher`, request by request.

That module is compiled, and simulates a whole load; this one serves real requests. A test compares the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tuner.testing.fake.timeline import Event, Timeline

_REACTION_S = 50e-6
_ROUNDING_S = 1e-9


class Item(Protocol):
    """A request to batch.

    Attributes:
        arrived: Arrival time, in s of the `Timeline`.
        size: Number of inferences.
        form: Requests of different forms cannot share a batch; None: any batch.
        cancelled: Whether the client has cancelled it.
    """

    arrived: float
    size: int
    form: object
    cancelled: bool


class Instance(Protocol):
    """A model instance, which executes batches."""

    def execute(self, batch: Sequence[Item], at: float, done: Callable[[float], None]) -> None:
        """Start executing a batch at a time; `done` is called once with the end time (both in s of the timeline)."""


@dataclass(frozen=True)
class Rules:
    """Settings of the batcher.

    Attributes:
        largest: Largest batch (`max_batch_size`, at least 1).
        dynamic: Whether requests are batched; False: one request per execution.
        preferred: Preferred batch sizes.
        delay_s: Longest time that a request waits for others, in s.
        most_queued: Largest queue in requests, beyond which requests are refused; 0: unlimited.
    """

    largest: int = 1
    dynamic: bool = False
    preferred: tuple[int, ...] = ()
    delay_s: float = 0.0
    most_queued: int = 0


@dataclass(eq=False)
class _Payload:
    items: list[Item] = field(default_factory=list)
    size: int = 0

    def take(self, item: Item) -> None:
        self.items.append(item)
        self.size += item.size


class Batcher:
    """Forms batches of requests, and hands them to instances.

    Args:
        rules: The batcher's settings.
        instances: The instances; as in Triton, the next batch goes to the instance that has been idle longest.
        timeline: The clock of all times.
    """

    def __init__(self, rules: Rules, instances: Sequence[Instance], timeline: Timeline) -> None:
        self._rules = rules
        self._preferred = frozenset(rules.preferred)
        self._last_preferred = max(rules.preferred, default=0)
        self._idle = deque(instances)
        self._timeline = timeline
        self._slots = 2 * len(instances)
        self._queue: deque[Item] = deque()
        self._queued = 0  # inferences
        self._payloads: deque[_Payload] = deque()
        self._growing: _Payload | None = None
        self._saturated = False
        self._next_preferred = 0
        self._wake: Event | None = None

    @property
    def waiting(self) -> int:
        """Number of requests that wait for an instance."""
        return len(self._queue) + sum(len(payload.items) for payload in self._payloads)

    def arrive(self, item: Item, at: float) -> bool:
        """Queue a request. Returns False if the queue is full."""
        if self._rules.most_queued and self.waiting >= self._rules.most_queued:
            return False
        if not self._rules.dynamic:
            payload = _Payload()
            payload.take(item)
            self._payloads.append(payload)
            self._settle(at, wake=False)
            return True
        self._queue.append(item)
        self._queued += item.size
        room = len(self._payloads) < self._slots
        if room and (self._saturated or self._queued >= self._next_preferred):
            self._wake_by(at + _REACTION_S)
        self._settle(at, wake=False)
        return True

    def _wake_by(self, due: float) -> None:
        if self._wake is None or self._wake.due > due:
            self._sleep()
            self._wake = self._timeline.at(due, self._on_wake)

    def _sleep(self) -> None:
        if self._wake:
            self._wake.dropped = True
            self._wake = None

    def _on_wake(self, at: float) -> None:
        self._wake = None
        self._settle(at, wake=True)

    def _on_done(self, instance: Instance, at: float) -> None:
        self._idle.append(instance)
        self._settle(at, wake=True)

    def _settle(self, at: float, *, wake: bool) -> None:
        """Let idle instances take formed batches, and form batches, until nothing changes."""
        while True:
            while self._idle and self._payloads:
                self._start(at)
                wake = True
            if not (wake and self._rules.dynamic):
                return
            wake = self._form(at)

    def _start(self, at: float) -> None:
        batch = self._payloads.popleft()
        self._forget(batch)
        while self._rules.dynamic and self._rules.delay_s > 0 and self._payloads:
            behind = self._payloads[0]
            waited = at - behind.items[0].arrived > self._rules.delay_s
            if not waited or batch.size + behind.size > self._rules.largest:
                break
            self._payloads.popleft()
            self._forget(behind)
            for item in behind.items:
                batch.take(item)
        instance = self._idle.popleft()
        instance.execute(batch.items, at, lambda ended: self._on_done(instance, ended))

    def _forget(self, payload: _Payload) -> None:
        if self._growing is payload:
            self._growing = None
            self._next_preferred = 0

    def _form(self, at: float) -> bool:
        """One iteration of the batcher thread. Returns whether to run another one."""
        self._sleep()
        if self._saturated:
            self._growing, self._saturated, self._next_preferred = None, False, 0
        if not self._queue or len(self._payloads) >= self._slots:
            return False
        held = self._growing.size if self._growing else 0
        count, size, marked, cannot_grow = self._look(held)
        exceeded = self._rules.delay_s > 0 and at - self._queue[0].arrived >= self._rules.delay_s - _ROUNDING_S
        goes = 0
        if marked and not exceeded:
            goes = marked
            self._saturated |= self._rules.delay_s == 0
        elif count:
            if cannot_grow or held + size >= self._last_preferred:
                goes = count
                self._saturated = True
            elif exceeded or self._rules.delay_s == 0:
                goes = count
            else:
                goes = self._wait(held, size, count)
        self._hand_over(goes)
        return goes > 0 or self._saturated

    def _look(self, held: int) -> tuple[int, int, int, bool]:
        """The next batch: requests, inferences, requests up to a preferred size, and whether no more requests fit."""
        count = size = marked = 0
        form = self._growing.items[0].form if self._growing else self._queue[0].form
        for item in self._queue:
            sum_of_all = held + size + item.size
            if held + size > 0:
                if sum_of_all > self._last_preferred and not marked:
                    marked = count
                    self._saturated = True
                if sum_of_all > self._rules.largest or item.form != form:
                    return count, size, marked, True
            count += 1
            size += item.size
            if sum_of_all in self._preferred:
                marked = count
        return count, size, marked, False

    def _wait(self, held: int, size: int, count: int) -> int:
        """Wait for the next preferred size or the end of the delay. Returns the number of requests to send now."""
        larger = [preferred for preferred in self._preferred if preferred > held + size]
        self._next_preferred = min(larger, default=self._last_preferred) - held
        if held > 0 and not self._saturated and held not in self._preferred:
            return count
        self._wake_by(self._queue[0].arrived + self._rules.delay_s)
        return 0

    def _hand_over(self, count: int) -> None:
        if not count:
            return
        if self._growing is None:
            self._growing = _Payload()
            self._payloads.append(self._growing)
        for _ in range(count):
            item = self._queue.popleft()
            self._queued -= item.size
            self._growing.take(item)
