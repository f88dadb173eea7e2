"""The interface between the load engine and the measurement."""

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
    """The responses of a decoupled model.

    Attributes:
        first_ns: (n,) time of each request's first response, in ns; of a request without any, the time of its end.
        count: (n,) number of responses to each request.
        gap_us: (m,) times between consecutive responses of the same request, in us, for all requests.
    """

    first_ns: npt.NDArray[np.int64]
    count: npt.NDArray[np.int32]
    gap_us: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Samples:
    """Requests in the order in which they ended. Times are in ns on the monotonic clock.

    Attributes:
        sent_ns: (n,) when each request was sent (closed loop) or due (open loop).
        done_ns: (n,) when its answer or error arrived; never decreasing.
        ok: (n,) whether it succeeded.
        lag_us: (n,) how much later than due it was sent, in us; 0 in a closed loop.
        received: (n,) bytes of its answer.
        errors: Count of each error message; the sum is the number of failed requests.
        cpu_s: CPU seconds of all client processes.
        wall_s: Seconds since the load began.
        processes: Number of client processes.
        waiting: Requests that are due but not sent yet.
        responses: The responses of a decoupled model; None for others.
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
"""Called with all samples so far; returns the seconds until the next call, or None to end the load. An exception ends
the load, and is raised by `offer`."""


class LoadEngine(Protocol):
    """Offers load to one model of one server, and times every request. Leaving the context closes its connections."""

    def offer(self, load: Load, watch: Watch, *, first_look_s: float) -> Samples:
        """Offer `load` until `watch` returns None or the load is over, without pauses.

        Failed requests are counted, never raised. On return no request is under way: remaining requests are drained for
        a moment, then cancelled, and are not in the samples. A load that ends by itself (a ramp, a recording) is
        drained until every request has ended, and `watch` is called once more.

        Args:
            load: The load.
            watch: See `Watch`.
            first_look_s: Seconds until the first call of `watch`.

        Raises:
            TuningError: the engine itself failed.
        """

    def close(self) -> None:
        """Close the connections; may be repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
