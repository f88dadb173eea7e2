"""Where requests are noted as they end, at the cost of three array writes each."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tuner.load.protocols import Samples

_CAPACITY = 1 << 14
_OK = 0
# Messages may carry an id or an address each; after so many kinds the rest is counted together.
_MOST_MESSAGES = 50
_OTHER = "other errors"

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Recorder:
    """Gathers the requests of one offer. One thread writes; others may take `samples` meanwhile.

    Args:
        capacity: Requests to make room for at first; doubled whenever it is full.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._sent_ns = np.empty(capacity, np.int64)
        self._done_ns = np.empty(capacity, np.int64)
        self._outcome = np.empty(capacity, np.int16)
        self._capacity = capacity
        self._count = 0
        self._messages: list[str] = ["ok"]
        self._outcome_of: dict[str, int] = {}
        self._began = (time.process_time(), time.monotonic())
        self._spent: tuple[float, float] | None = None

    def success(self, sent_ns: int, done_ns: int) -> None:
        """Note a request that was answered; `done_ns` must not be before that of the one noted last."""
        self._note(sent_ns, done_ns, _OK)

    def failure(self, sent_ns: int, done_ns: int, message: str) -> None:
        """Note a request that failed."""
        if message not in self._outcome_of and len(self._messages) > _MOST_MESSAGES:
            message = _OTHER
        if message not in self._outcome_of:
            self._outcome_of[message] = len(self._messages)
            self._messages.append(message)
        self._note(sent_ns, done_ns, self._outcome_of[message])

    def stop(self) -> None:
        """Stop the clocks; nothing is noted after."""
        self._spent = self._elapsed()

    def samples(self) -> Samples:
        """All that was noted so far, without a copy."""
        # The count is read first and written last: what lies below it never changes, in whichever arrays.
        count = self._count
        outcome = self._outcome[:count]
        seen = np.bincount(outcome, minlength=1)
        cpu_s, wall_s = self._spent or self._elapsed()
        return Samples(
            sent_ns=_frozen(self._sent_ns[:count]),
            done_ns=_frozen(self._done_ns[:count]),
            ok=_frozen(outcome == _OK),
            errors=MappingProxyType({self._messages[kind]: int(seen[kind]) for kind in seen.nonzero()[0] if kind}),
            cpu_s=cpu_s,
            wall_s=wall_s,
        )

    def _note(self, sent_ns: int, done_ns: int, outcome: int) -> None:
        place = self._count
        if place == self._capacity:
            self._grow()
        self._sent_ns[place] = sent_ns
        self._done_ns[place] = done_ns
        self._outcome[place] = outcome
        self._count = place + 1

    def _grow(self) -> None:
        self._sent_ns = np.concatenate([self._sent_ns, np.empty_like(self._sent_ns)])
        self._done_ns = np.concatenate([self._done_ns, np.empty_like(self._done_ns)])
        self._outcome = np.concatenate([self._outcome, np.empty_like(self._outcome)])
        self._capacity *= 2

    def _elapsed(self) -> tuple[float, float]:
        return time.process_time() - self._began[0], time.monotonic() - self._began[1]


def _frozen(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    array.flags.writeable = False
    return array
