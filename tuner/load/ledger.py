"""Where one process notes requests as they end, and another reads along: one piece of shared memory an offer.

It has no name and takes no more than what is written: its pages come when they are touched, and go with the last of the
two. Only the worker writes what it noted, and only its owner writes when to stop, so nothing needs a lock: a count is
raised after what it counts was written, and what lies below it never changes.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

CAPACITY: Final = 1 << 26
"""Requests that an offer can note: at 30,000 a second, after 37 minutes it is full, and the offer ends."""

MOST_AT_ONCE: Final = 1 << 12
"""So many requests may be noted before their count is raised; there is room for them beyond the capacity."""

# The control words, by place.
COUNT, NOTED_NS, BEGAN_NS, ENDED_NS, CPU_NS, STOP_NS, MESSAGES, GAPS, WAITING = range(9)

MESSAGE_BYTES: Final = 1 << 11
# Messages may carry an id or an address each; after so many kinds the rest is counted together.
MOST_MESSAGES: Final = 50
_OTHER = "other errors"

Form = Literal["q", "i", "I", "h"]
_PAGE = 4096
_MESSAGES_AT = _PAGE
_ARRAYS_AT = _MESSAGES_AT + -(-(MOST_MESSAGES + 2) * MESSAGE_BYTES // _PAGE) * _PAGE
# Name, format, and bytes of an element.
_ARRAYS: tuple[tuple[str, Form, int], ...] = (
    ("sent_ns", "q", 8),
    ("done_ns", "q", 8),
    ("first_ns", "q", 8),
    ("lag_us", "i", 4),
    ("received", "I", 4),
    ("responses", "i", 4),
    ("gap_us", "I", 4),
    ("outcome", "h", 2),
)
_ELEMENT_BYTES = sum(size for _, _, size in _ARRAYS)


def make_memory(capacity: int | None = None) -> int:
    """A file descriptor of memory for one offer, zeroed.

    Args:
        capacity: How many requests it can note; None: `CAPACITY`.
    """
    descriptor = os.memfd_create("tritontune-load", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _ARRAYS_AT + ((capacity or CAPACITY) + MOST_AT_ONCE) * _ELEMENT_BYTES)
    return descriptor


def array_length(memory_bytes: int) -> int:
    """How many elements each array has, in memory of that size."""
    return (memory_bytes - _ARRAYS_AT) // _ELEMENT_BYTES


def array_places(length: int) -> Iterator[tuple[str, int, Form]]:
    """Name, offset in bytes and format of each array."""
    at = _ARRAYS_AT
    for name, form, size in _ARRAYS:
        yield name, at, form
        at += length * size


class Full(Exception):  # noqa: N818 (it ends an offer; it is no error)
    """An offer has noted as many requests as there is room for."""


class OwnerGoneError(Exception):
    """Nobody reads along any more."""


class LedgerWriter:
    """The worker's side. Hot paths may write to the arrays themselves, and end with `count`.

    Args:
        descriptor: Of the memory.
        owner: Who reads along: the parent process of the one that is to write.

    Attributes:
        capacity: How many requests can be noted.
    """

    def __init__(self, descriptor: int, owner: int | None = None) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._whole = memoryview(self._memory)
        self.control = self._whole[:_PAGE].cast("q")
        length = array_length(len(self._whole))
        self.capacity = length - MOST_AT_ONCE
        arrays = {
            name: self._whole[at : at + length * size].cast(form)
            for (name, at, form), (_, _, size) in zip(array_places(length), _ARRAYS, strict=True)
        }
        self.sent_ns, self.done_ns, self.first_ns = arrays["sent_ns"], arrays["done_ns"], arrays["first_ns"]
        self.lag_us, self.received, self.outcome = arrays["lag_us"], arrays["received"], arrays["outcome"]
        self._responses, self._gap_us = arrays["responses"], arrays["gap_us"]
        self._arrays = arrays
        self._outcomes: dict[str, int] = {}
        self._owner = owner or os.getppid()
        self._cpu_began_ns = time.process_time_ns()
        self.control[BEGAN_NS] = time.monotonic_ns()

    @property
    def stop_ns(self) -> int:
        """0 while the load is to go on; then, until when what is under way may end by itself."""
        return self.control[STOP_NS]

    def note(self, sent_ns: int, done_ns: int, outcome: int, *, lag_us: int = 0, received: int = 0) -> None:
        """Note a request that ended. `done_ns` must not be before that of the one noted last.

        Args:
            sent_ns: When it was sent, or due.
            done_ns: When it ended.
            outcome: 0, or what `outcome_of` says of its error.
            lag_us: How much later than due it was sent.
            received: Bytes of the answer.

        Raises:
            Full: it was the last that there is room for.
        """
        place = self.control[COUNT]
        self.sent_ns[place] = sent_ns
        self.done_ns[place] = done_ns
        self.outcome[place] = outcome
        self.lag_us[place] = lag_us
        self.received[place] = min(received, 0xFFFFFFFF)
        self.raise_count(place + 1)

    def raise_count(self, count: int) -> None:
        """Say that so many requests are noted.

        Raises:
            Full: there is no room for more.
        """
        self.control[COUNT] = count
        if count >= self.capacity:
            raise Full

    def note_responses(self, first_ns: int, count: int, gaps_us: list[int]) -> None:
        """Note what is known of the responses of the request that is noted next."""
        place, gaps = self.control[COUNT], self.control[GAPS]
        self.first_ns[place] = first_ns
        self._responses[place] = count
        for gap_us in gaps_us[: self.capacity - gaps]:
            self._gap_us[gaps] = min(gap_us, 0xFFFFFFFF)
            gaps += 1
        self.control[GAPS] = gaps

    def outcome_of(self, message: str) -> int:
        """The number under which an error message is noted."""
        if message not in self._outcomes and len(self._outcomes) >= MOST_MESSAGES:
            message = _OTHER
        if message not in self._outcomes:
            number = len(self._outcomes) + 1
            text = message.encode()[: MESSAGE_BYTES - 8]
            at = _MESSAGES_AT + (number - 1) * MESSAGE_BYTES
            self._whole[at : at + 8] = len(text).to_bytes(8, "little")
            self._whole[at + 8 : at + 8 + len(text)] = text
            self.control[MESSAGES] = number
            self._outcomes[message] = number
        return self._outcomes[message]

    def tick(self, now_ns: int, waiting: int = 0) -> None:
        """Say that all that ended until now is noted, and what it has cost; now and then, also when nothing ends.

        Raises:
            OwnerGoneError: there is nobody to say it to.
        """
        if os.getppid() != self._owner:
            raise OwnerGoneError
        self.control[CPU_NS] = time.process_time_ns() - self._cpu_began_ns
        self.control[WAITING] = waiting
        self.control[NOTED_NS] = now_ns

    def end(self) -> None:
        """Stop the clocks; nothing is noted after. Again changes nothing."""
        if not self.control[ENDED_NS]:
            now_ns = time.monotonic_ns()
            self.tick(now_ns, self.control[WAITING])
            self.control[ENDED_NS] = now_ns

    def close(self) -> None:
        """Give the memory back; its reader keeps its own hold on it."""
        for view in (self.control, *self._arrays.values(), self._whole):
            view.release()
        self._memory.close()


@contextmanager
def ledger(descriptor: int, owner: int) -> Iterator[LedgerWriter]:
    """The worker's side of the memory that a descriptor holds; closes both."""
    writer = LedgerWriter(descriptor, owner)
    os.close(descriptor)
    try:
        yield writer
    finally:
        writer.close()


def read_message(memory: memoryview, number: int) -> str:
    """The error message of an outcome, 1 or more."""
    at = _MESSAGES_AT + (number - 1) * MESSAGE_BYTES
    length = int.from_bytes(memory[at : at + 8], "little")
    return bytes(memory[at + 8 : at + 8 + length]).decode(errors="replace")
