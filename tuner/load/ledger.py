"""The ledger: shared memory in which a worker records requests as they end, while its owner reads them.

Each offer has its own ledger. The memory is anonymous, and its pages are allocated when they are written. No lock is
needed: only the worker writes records, and only the owner writes the stop time. The count is raised after a record is
written, and records below the count never change.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

CAPACITY: Final = 1 << 26
"""Requests that a ledger can hold. When it is full, the offer ends: after 37 minutes at 30,000 requests/s."""

MOST_AT_ONCE: Final = 1 << 12
"""Requests that may be recorded before the count is raised; there is extra room for them."""

# Indices of the control words.
COUNT, NOTED_NS, BEGAN_NS, ENDED_NS, CPU_NS, STOP_NS, MESSAGES, GAPS, WAITING = range(9)

MESSAGE_BYTES: Final = 1 << 11
# Messages may contain ids. After this many distinct messages, further ones are counted as other errors.
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
    """A file descriptor of zeroed memory for one offer.

    Args:
        capacity: Number of requests that it can hold; None: `CAPACITY`.
    """
    descriptor = os.memfd_create("tritontune-load", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _ARRAYS_AT + ((capacity or CAPACITY) + MOST_AT_ONCE) * _ELEMENT_BYTES)
    return descriptor


def array_length(memory_bytes: int) -> int:
    """Elements of each array, in memory of that size."""
    return (memory_bytes - _ARRAYS_AT) // _ELEMENT_BYTES


def array_places(length: int) -> Iterator[tuple[str, int, Form]]:
    """Name, offset in bytes and format of each array."""
    at = _ARRAYS_AT
    for name, form, size in _ARRAYS:
        yield name, at, form
        at += length * size


class Full(Exception):  # noqa: N818 (it ends an offer; it is no error)
    """The ledger of an offer is full."""


class OwnerGoneError(Exception):
    """The owner process has ended."""


class LedgerWriter:
    """The worker's side of a ledger. Hot paths may write to the arrays, and then call `raise_count`.

    Args:
        descriptor: The file descriptor of the memory.
        owner: The pid of the owner, which must be the parent of the writing process; None: the parent.

    Attributes:
        capacity: Number of requests that can be recorded.
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
        """0 while the load continues; then the time in ns until which requests under way may end."""
        return self.control[STOP_NS]

    def note(self, sent_ns: int, done_ns: int, outcome: int, *, lag_us: int = 0, received: int = 0) -> None:
        """Record a request that ended. `done_ns` must not decrease from call to call.

        Args:
            sent_ns: When it was sent (closed loop) or due (open loop).
            done_ns: When it ended.
            outcome: 0 for success, else the number from `outcome_of`.
            lag_us: How much later than due it was sent.
            received: Bytes of the answer.

        Raises:
            Full: the ledger is full now.
        """
        place = self.control[COUNT]
        self.sent_ns[place] = sent_ns
        self.done_ns[place] = done_ns
        self.outcome[place] = outcome
        self.lag_us[place] = lag_us
        self.received[place] = min(received, 0xFFFFFFFF)
        self.raise_count(place + 1)

    def raise_count(self, count: int) -> None:
        """Publish the number of recorded requests.

        Raises:
            Full: the ledger is full.
        """
        self.control[COUNT] = count
        if count >= self.capacity:
            raise Full

    def note_responses(self, first_ns: int, count: int, gaps_us: list[int]) -> None:
        """Record the responses of the request that is recorded next: time of the first, number, and gaps."""
        place, gaps = self.control[COUNT], self.control[GAPS]
        self.first_ns[place] = first_ns
        self._responses[place] = count
        for gap_us in gaps_us[: self.capacity - gaps]:
            self._gap_us[gaps] = min(gap_us, 0xFFFFFFFF)
            gaps += 1
        self.control[GAPS] = gaps

    def outcome_of(self, message: str) -> int:
        """The outcome number of an error message, which is stored on first use."""
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
        """Publish the time up to which all ended requests are recorded, and the CPU time; called regularly.

        Raises:
            OwnerGoneError: the owner has ended.
        """
        if os.getppid() != self._owner:
            raise OwnerGoneError
        self.control[CPU_NS] = time.process_time_ns() - self._cpu_began_ns
        self.control[WAITING] = waiting
        self.control[NOTED_NS] = now_ns

    def end(self) -> None:
        """Stop the clocks; nothing may be recorded afterwards. May be repeated."""
        if not self.control[ENDED_NS]:
            now_ns = time.monotonic_ns()
            self.tick(now_ns, self.control[WAITING])
            self.control[ENDED_NS] = now_ns

    def close(self) -> None:
        """Release the memory; the reader keeps its own mapping."""
        for view in (self.control, *self._arrays.values(), self._whole):
            view.release()
        self._memory.close()


@contextmanager
def ledger(descriptor: int, owner: int) -> Iterator[LedgerWriter]:
    """Open the worker's side of a ledger; closes the descriptor, and the ledger at the end."""
    writer = LedgerWriter(descriptor, owner)
    os.close(descriptor)
    try:
        yield writer
    finally:
        writer.close()


def read_message(memory: memoryview, number: int) -> str:
    """The error message of an outcome number, from 1."""
    at = _MESSAGES_AT + (number - 1) * MESSAGE_BYTES
    length = int.from_bytes(memory[at : at + 8], "little")
    return bytes(memory[at + 8 : at + 8 + length]).decode(errors="replace")
