"""What load to offer. A closed loop keeps requests under way; an open loop sends at its own times, come what may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Distribution = Literal["poisson", "constant"]
"""Of the gaps between requests: exponential, as independent users make them, or all alike."""


@dataclass(frozen=True)
class Concurrency:
    """Closed loop: this many requests are under way at every moment."""

    requests: int

    @property
    def level(self) -> float:
        """How much this is, among loads of its kind."""
        return self.requests

    def __str__(self) -> str:
        return f"concurrency {self.requests}"


@dataclass(frozen=True)
class RequestRate:
    """Open loop: so many requests a second, due at times of their own, however many are under way."""

    per_s: float
    distribution: Distribution = "poisson"

    @property
    def level(self) -> float:
        """How much this is, among loads of its kind."""
        return self.per_s

    def __str__(self) -> str:
        return f"{self.per_s:g} requests/s"


@dataclass(frozen=True)
class Ramp:
    """Open loop: a request rate that goes evenly from one value to another, and then ends."""

    from_per_s: float
    to_per_s: float
    over_s: float
    distribution: Distribution = "poisson"

    @property
    def level(self) -> float:
        """How much this is, among loads of its kind."""
        return self.to_per_s

    def __str__(self) -> str:
        return f"{self.from_per_s:g} to {self.to_per_s:g} requests/s"


@dataclass(frozen=True)
class Replay:
    """Open loop: requests at recorded times.

    Attributes:
        name: Of the recording.
        offsets_ns: When each request is due, since the start; never decreasing.
        period_ns: After so long it begins anew; None: it ends with the last request.
    """

    name: str
    offsets_ns: tuple[int, ...]
    period_ns: int | None = None

    @property
    def level(self) -> float:
        """How much this is, among loads of its kind: mean requests a second."""
        length_ns = self.period_ns or self.offsets_ns[-1] or 1
        return len(self.offsets_ns) / length_ns * 1e9

    def __str__(self) -> str:
        return f"replay of {self.name}"


OpenLoop = RequestRate | Ramp | Replay
Load = Concurrency | RequestRate | Ramp | Replay
