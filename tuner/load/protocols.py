"""The seam between what offers load and what makes numbers of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self


@dataclass(frozen=True)
class Concurrency:
    """Closed loop: this many requests are under way at every moment."""

    requests: int

    def __str__(self) -> str:
        return f"concurrency {self.requests}"


@dataclass(frozen=True)
class Samples:
    """Requests that ended, in the order in which they did. Times are of one monotonic clock, in ns.

    Attributes:
        sent_ns: (n,) when each was sent.
        done_ns: (n,) when its answer was there, or its error; never decreasing.
        ok: (n,) whether it was answered without error.
        errors: How often each error message was seen; the counts add up to the number of `ok == False`.
        cpu_s: CPU seconds that the client spent meanwhile.
        wall_s: Seconds since the load began.
    """

    sent_ns: npt.NDArray[np.int64]
    done_ns: npt.NDArray[np.int64]
    ok: npt.NDArray[np.bool_]
    errors: Mapping[str, int]
    cpu_s: float
    wall_s: float

    def __len__(self) -> int:
        return len(self.done_ns)


Watch = Callable[[Samples], "float | None"]
"""Looks at all samples so far, and says in how many seconds it wants to look again, or None to end. What it raises
ends the load and reaches the caller of `offer`."""


class LoadEngine(Protocol):
    """Offers load to one model of one server and times every request. Leaving the context closes its connections."""

    def offer(self, load: Concurrency, watch: Watch, *, first_look_s: float) -> Samples:
        """Offer `load` until `watch` has seen enough, without a pause between its looks.

        A request that fails is counted, never raised. On return nothing is under way any more: requests that were
        still out are drained for a moment and cancelled if they do not end; neither kind is in the samples.
        """

    def close(self) -> None:
        """Close the connections; again is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
