"""The part of a measurement that counts: warm-up cut off, and no batch cut in two at either end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate
from tuner.load.protocols import Samples
from tuner.stats.warmup import open_warm_up, warm_up

_FEW = 8
# Of the latencies of an open loop; so quick are only those that waited for next to nothing.
_UNDELAYED = 0.05


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
    def end_ns(self) -> int:
        """When the last of them ended; without any, the start."""
        return int(self.done_ns[-1]) if len(self) else self.start_ns

    @property
    def length_s(self) -> float:
        """From the start to the last completion, at least 1 ns; without any completion too."""
        return max(1, self.end_ns - self.start_ns) / 1e9

    def covers(self, samples: Samples) -> npt.NDArray[np.bool_]:
        """(m,) which samples, failures included, ended within it."""
        first_ns = min(self.start_ns + 1, self.done_ns[0]) if len(self) else self.start_ns + 1
        return (samples.done_ns >= first_ns) & (samples.done_ns <= self.end_ns)


def ends_by_itself(load: Load) -> bool:
    """Whether a load is over at some time, and measured as a whole."""
    return isinstance(load, Ramp) or (isinstance(load, Replay) and load.period_ns is None)


def steady_window(samples: Samples, load: Load) -> Window:
    """The successes from where the load has warmed up; all of them when there are too few to tell.

    What a ramp or a recording offers is never steady, so all of it counts.
    """
    whole = whole_window(samples)
    if isinstance(load, Concurrency):
        if len(whole) < max(_FEW, 2 * load.requests):
            return whole
        return _between_batches(whole, samples, first=warm_up(whole.latency_ms, load.requests), batch=load.requests)
    if isinstance(load, RequestRate) and len(whole) >= _FEW:
        return _between_batches(whole, samples, first=open_warm_up(whole.latency_ms), batch=_in_service(whole))
    return whole


def whole_window(samples: Samples) -> Window:
    """All successes, from when the first request was sent or due."""
    began_ns = int(samples.sent_ns.min()) if len(samples) else 0
    done_ns = samples.done_ns[samples.ok]
    return Window(began_ns, done_ns, (done_ns - samples.sent_ns[samples.ok]) / 1e6)


def _in_service(whole: Window) -> int:
    """How many requests of an open loop were served at once, by Little's law: their rate times the time in service.

    Most requests also wait, and where the server cannot keep up ever longer, so their mean says too much.
    """
    service_s = float(np.quantile(whole.latency_ms, _UNDELAYED)) / 1e3
    return int(len(whole) / whole.length_s * service_s)


def _between_batches(whole: Window, samples: Samples, *, first: int, batch: int) -> Window:
    """What is left without the first requests, and without part of a batch at either end.

    A batch is at most `batch` requests, and ends where a wide gap follows; after the last request, that is the time
    since.
    """
    done_ns, count = whole.done_ns, len(whole)
    first, last = max(1, first), count
    reach = min(batch, count // 8)
    if reach > 1:
        ends_ns = np.append(done_ns, max(whole.start_ns + round(samples.wall_s * 1e9), done_ns[-1]))
        first = _widest_gap(ends_ns, first, reach)
        last = _widest_gap(ends_ns, count - reach, reach + 1)
    return Window(int(done_ns[first - 1]), done_ns[first:last], whole.latency_ms[first:last])


def _widest_gap(ends_ns: npt.NDArray[np.int64], place: int, reach: int) -> int:
    """How many completions lie before the widest of `reach` gaps, of which the first is that before `place`."""
    return place + int(np.argmax(np.diff(ends_ns[place - 1 : place + reach])))
