"""Events in order of time, on a real clock or on a test's clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class Event:
    """A scheduled event.

    Attributes:
        due: Its time, in s of the timeline's clock.
        number: Its rank among events of the same time: the order of scheduling.
        action: Called with `due`.
        dropped: Whether it is cancelled.
    """

    due: float
    number: int
    action: Callable[[float], None] = field(compare=False)
    dropped: bool = field(default=False, compare=False)


class Timeline:
    """Scheduled events; the action of each gets the scheduled time, not the current time.

    So follow-up events are in time even if the process was late. For example, a model with a service time of 10 ms
    serves 100 executions/s even on a busy machine.

    Args:
        on_sooner: Called with the time of a new event that is the next one.
    """

    def __init__(self, on_sooner: Callable[[float], None] | None = None) -> None:
        self._events: list[Event] = []
        self._numbers = itertools.count()
        self._on_sooner = on_sooner
        self._running = False

    @property
    def next_due(self) -> float | None:
        """The time of the next event; None: there is none."""
        while self._events and self._events[0].dropped:
            heapq.heappop(self._events)
        return self._events[0].due if self._events else None

    def at(self, due: float, action: Callable[[float], None]) -> Event:
        """Schedule an event; it can be cancelled by `dropped`."""
        event = Event(due, next(self._numbers), action)
        heapq.heappush(self._events, event)
        if self._on_sooner and not self._running and self._events[0] is event:
            self._on_sooner(due)
        return event

    def run(self, until: float) -> None:
        """Run all events up to a time."""
        self._running = True
        try:
            while (due := self.next_due) is not None and due <= until:
                event = heapq.heappop(self._events)
                event.action(event.due)
        finally:
            self._running = False
        if self._on_sooner and (due := self.next_due) is not None:
            self._on_sooner(due)
