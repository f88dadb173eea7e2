"""Kinds of load. A closed loop keeps requests under way; an open loop sends at given times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Distribution = Literal["poisson", "constant"]
"""The gaps between requests: exponential (Poisson arrivals, as of independent users), or constant."""


@dataclass(frozen=True)
class Concurrency:
    """Closed loop: a constant number of requests under way."""

    requests: int

    @property
    def level(self) -> float:
        """A number to order loads of the same kind."""
        return self.requests

    def __str__(self) -> str:
        return f"concurrency {self.requests}"


@dataclass(frozen=True)
class RequestRate:
    """Open loop: a constant rate of requests per second, however many are under way."""

    per_s: float
    distribution: Distribution = "poisson"

    @property
    def level(self) -> float:
        """A number to order loads of the same kind."""
        return self.per_s

    def __str__(self) -> str:
        return f"{self.per_s:g} requests/s"


@dataclass(frozen=True)
class Ramp:
    """Open loop: a rate that changes linearly from one value to another within `over_s` seconds, and then ends."""

    from_per_s: float
    to_per_s: float
    over_s: float
    distribution: Distribution = "poisson"

    @property
    def level(self) -> float:
        """A number to order loads of the same kind."""
        return self.to_per_s

    def __str__(self) -> str:
        return f"{self.from_per_s:g} to {self.to_per_s:g} requests/s"


@dataclass(frozen=True)
class Replay:
    """Open loop: requests at recorded times.

    Attributes:
        name: The name of the recording.
        offsets_ns: Due times in ns since the start, never decreasing.
        period_ns: It repeats after this time, in ns; None: it ends with the last request.
    """

    name: str
    offsets_ns: tuple[int, ...]
    period_ns: int | None = None

    @property
    def level(self) -> float:
        """A number to order loads of the same kind: mean requests per second."""
        length_ns = self.period_ns or self.offsets_ns[-1] or 1
        return len(self.offsets_ns) / length_ns * 1e9

    def __str__(self) -> str:
        return f"replay of {self.name}"


SteadyLoad = Concurrency | RequestRate
"""Loads that do not change with time."""
OpenLoop = RequestRate | Ramp | Replay
Load = Concurrency | RequestRate | Ramp | Replay
