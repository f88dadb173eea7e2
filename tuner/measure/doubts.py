"""Why a number should not be taken as it is."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from tuner.core.record import Record


class Gate(str, Enum):
    """What every operating point has to pass; see `gates.py`."""

    LITTLES_LAW = "littles_law"
    REQUEST_COUNT = "request_count"
    FAILURES = "failures"
    CACHE_HITS = "cache_hits"
    CLIENT_BOUND = "client_bound"
    DRIFT = "drift"
    GPU_THROTTLED = "gpu_throttled"
    MACHINE_LOAD = "machine_load"

    @property
    def words(self) -> str:
        """Its name for people."""
        return _WORDS[self]


_WORDS = {
    Gate.LITTLES_LAW: "Little's law",
    Gate.REQUEST_COUNT: "request count",
    Gate.FAILURES: "failed requests",
    Gate.CACHE_HITS: "cache hits",
    Gate.CLIENT_BOUND: "the client",
    Gate.DRIFT: "drift",
    Gate.GPU_THROTTLED: "GPU throttled",
    Gate.MACHINE_LOAD: "load from elsewhere",
}


class Doubt(Record):
    """A gate that an operating point has not passed.

    Attributes:
        gate: Which.
        reason: One line with the numbers.
    """

    gate: Gate
    reason: str


def doubts_together(rounds: Sequence[tuple[Doubt, ...]]) -> tuple[Doubt, ...]:
    """Those about several measurements of the same load: of each gate the first, and in how many rounds it failed."""
    first: dict[Gate, Doubt] = {}
    for doubt in (doubt for doubts in rounds for doubt in doubts):
        first.setdefault(doubt.gate, doubt)
    if len(rounds) == 1:
        return tuple(first.values())
    counts = {gate: sum(any(each.gate is gate for each in doubts) for doubts in rounds) for gate in first}
    return tuple(
        Doubt(gate=gate, reason=f"{doubt.reason} (in {counts[gate]} of {len(rounds)} rounds)")
        for gate, doubt in first.items()
    )
