"""The part of a measurement that counts: warm-up cut off, and no batch cut in two at either end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.load.protocols import Samples
from tuner.measure.warmup import warm_up

_FEW = 8


@dataclass(frozen=True)
class Window:
    """Successful requests that count, in the order in which they ended.

    Attributes:
        start_ns: When the last request ended that does not count any more.
        done_ns: (n,) when each ended; never decreasing.
        latency_ms: (n,) how long each took.
    """

    start_ns: int
    done_ns: npt.NDArray[np.int64]
    latency_ms: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.done_ns)

    @property
    def length_s(self) -> float:
        """From the start to the last completion, at least 1 ns; without any completion too."""
        last_ns = int(self.done_ns[-1]) if len(self) else self.start_ns
        return max(1, last_ns - self.start_ns) / 1e9


def steady_window(samples: Samples, concurrency: int) -> Window:
    """The successes of a closed loop from where it has warmed up; all of them when there are less than two rounds."""
    done_ns = samples.done_ns[samples.ok]
    latency_ms = (done_ns - samples.sent_ns[samples.ok]) / 1e6
    count = len(done_ns)
    began_ns = int(samples.sent_ns.min()) if len(samples) else 0
    if count < max(_FEW, 2 * concurrency):
        return Window(began_ns, done_ns, latency_ms)
    first, last = max(1, warm_up(latency_ms, concurrency)), count
    # A batch is at most a round, and ends where a wide gap follows; after the last request, that is the time since.
    reach = min(concurrency, count // 8)
    if reach > 1:
        ends_ns = np.append(done_ns, max(began_ns + round(samples.wall_s * 1e9), done_ns[-1]))
        first = _widest_gap(ends_ns, first, reach)
        last = _widest_gap(ends_ns, count - reach, reach + 1)
    return Window(int(done_ns[first - 1]), done_ns[first:last], latency_ms[first:last])


def _widest_gap(ends_ns: npt.NDArray[np.int64], place: int, reach: int) -> int:
    """How many completions lie before the widest of `reach` gaps, of which the first is that before `place`."""
    return place + int(np.argmax(np.diff(ends_ns[place - 1 : place + reach])))
