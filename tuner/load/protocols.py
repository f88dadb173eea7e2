"""The seam between what offers load and what makes numbers of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from tuner.core.loads import Load


@dataclass(frozen=True)
class Responses:
    """What a model with any number of responses to a request answered.

    Attributes:
        first_ns: (n,) when each request's first response was there; of requests that failed before, when they did.
        count: (n,) responses of each request.
        gap_us: (m,) the time between one response and the next of the same request, over all requests.
    """

    first_ns: npt.NDArray[np.int64]
    count: npt.NDArray[np.int32]
    gap_us: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Samples:
    """Requests that ended, in the order in which they did. Times are of the machine's one monotonic clock, in ns.

    Attributes:
        sent_ns: (n,) when each was sent in a closed loop, and when it was due in an open one.
        done_ns: (n,) when its answer was there, or its error; never decreasing.
        ok: (n,) whether it was answered without error.
        lag_us: (n,) how much later than due each was sent; 0 in a closed loop.
        received: (n,) bytes of each answer.
        errors: How often each error message was seen; the counts add up to the number of `ok == False`.
        cpu_s: CPU seconds that the client's processes spent meanwhile, all together.
        wall_s: Seconds since the load began.
        processes: How many processes offered it.
        waiting: Requests that were due at the last look and could not be sent yet.
        responses: Only for a model with any number of responses to a request.
        began_ns: When the load began; None: with the first request.
    """

    sent_ns: npt.NDArray[np.int64]
    done_ns: npt.NDArray[np.int64]
    ok: npt.NDArray[np.bool_]
    errors: Mapping[str, int]
    cpu_s: float
    wall_s: float
    lag_us: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    received: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    processes: int = 1
    waiting: int = 0
    responses: Responses | None = None
    began_ns: int | None = None

    def __len__(self) -> int:
        return len(self.done_ns)


Watch = Callable[[Samples], "float | None"]
"""Looks at all samples so far, and says in how many seconds it wants to look again, or None to end. What it raises
ends the load and reaches the caller of `offer`."""


class LoadEngine(Protocol):
    """Offers load to one model of one server and times every request. Leaving the context closes its connections."""

    def offer(self, load: Load, watch: Watch, *, first_look_s: float) -> Samples:
        """Offer `load` until `watch` has seen enough or the load is over, without a pause between its looks.

        A request that fails is counted, never raised. On return nothing is under way any more: requests that were
        still out are drained for a moment and cancelled if they do not end; neither kind is in the samples. A load
        that ends by itself (a ramp, a recording) is drained until every request has ended, and `watch` looks once
        more.

        Raises:
            TuningError: the engine itself broke.
        """

    def close(self) -> None:
        """Close the connections; again is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
