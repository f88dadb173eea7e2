"""What is to happen when, in order of time, whether the clock is real or a test's."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class Event:
    """Something that is to happen.

    Attributes:
        due: When, in seconds of the timeline's clock.
        number: Events of one time happen in the order in which they were set.
        action: Is called with `due`.
        dropped: Whether it is not to happen after all.
    """

    due: float
    number: int
    action: Callable[[float], None] = field(compare=False)
    dropped: bool = field(default=False, compare=False)


class Timeline:
    """Events, each of which is told when it was due, not when its turn came.

    So what follows from an event is in time even where the process was late: a model that takes 10 ms serves 100
    executions a second on a machine that is busy with something else, too.

    Args:
        on_sooner: Is called when another event has become the next one, with the time at which that is due.
    """

    def __init__(self, on_sooner: Callable[[float], None] | None = None) -> None:
        self._events: list[Event] = []
        self._numbers = itertools.count()
        self._on_sooner = on_sooner
        self._running = False

    @property
    def next_due(self) -> float | None:
        """When the next event is due; None: there is none."""
        while self._events and self._events[0].dropped:
            heapq.heappop(self._events)
        return self._events[0].due if self._events else None

    def at(self, due: float, action: Callable[[float], None]) -> Event:
        """Have something happen at a time; it can be dropped."""
        event = Event(due, next(self._numbers), action)
        heapq.heappush(self._events, event)
        if self._on_sooner and not self._running and self._events[0] is event:
            self._on_sooner(due)
        return event

    def run(self, until: float) -> None:
        """Let everything happen that is due by a time."""
        self._running = True
        try:
            while (due := self.next_due) is not None and due <= until:
                event = heapq.heappop(self._events)
                event.action(event.due)
        finally:
            self._running = False
        if self._on_sooner and (due := self.next_due) is not None:
            self._on_sooner(due)
