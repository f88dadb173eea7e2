"""The front of operating points that come one after the other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class FrontEntry(Generic[Item]):
    """A point that may be on the front.

    Attributes:
        key: Identifies it: a later point with the same key replaces it.
        latency_ms: Its latency, in ms; less is better.
        merit: The value of the objective, or the inverse of a latency; more is better.
        place: Among equal points, the one with the lowest place is on the front.
        item: What belongs to it.
    """

    key: Hashable
    latency_ms: float
    merit: float
    place: tuple[float, ...]
    item: Item

    @property
    def order(self) -> tuple[float, ...]:
        """The order in which the front is found: by latency, and then by merit, downward."""
        return (self.latency_ms, -self.merit, *self.place)


class IncrementalFront(Generic[Item]):
    """The points that no other beats in both latency and merit; equal to `tuner.recommend.front.pareto_front`.

    A new point costs a search in the front. Only after a point of the front is removed or replaced, all points are
    compared again.
    """

    def __init__(self) -> None:
        self._all: dict[Hashable, FrontEntry[Item]] = {}
        # Sorted by order; so the merits rise.
        self._front: list[FrontEntry[Item]] = []
        self._is_stale = False

    def put(self, entry: FrontEntry[Item]) -> None:
        """Add a point, or replace the one with the same key."""
        if self._all.get(entry.key) != entry:
            self.remove(entry.key)
            self._all[entry.key] = entry
            if not self._is_stale:
                self._insert(entry)

    def remove(self, key: Hashable) -> None:
        """Remove a point, if it is there."""
        entry = self._all.pop(key, None)
        if entry is not None and not self._is_stale:
            at = bisect_left(self._front, entry.order, key=lambda other: other.order)
            self._is_stale = at < len(self._front) and self._front[at].key == key

    @property
    def entries(self) -> Sequence[FrontEntry[Item]]:
        """The front, in ascending order of latency."""
        if self._is_stale:
            self._front = list(_front(self._all.values()))
            self._is_stale = False
        return tuple(self._front)

    def _insert(self, entry: FrontEntry[Item]) -> None:
        at = bisect_left(self._front, entry.order, key=lambda other: other.order)
        if at and self._front[at - 1].merit >= entry.merit:
            return
        end = at
        while end < len(self._front) and self._front[end].merit <= entry.merit:
            end += 1
        self._front[at:end] = [entry]


def _front(entries: Iterable[FrontEntry[Item]]) -> Iterable[FrontEntry[Item]]:
    best = None
    for entry in sorted(entries, key=lambda each: each.order):
        if best is None or entry.merit > best:
            best = entry.merit
            yield entry
