"""The window: the part of a measurement that counts, without warm-up and without partial batches at its ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.core.loads import Concurrency, Load, Ramp, Replay, RequestRate
from tuner.load.protocols import Samples
from tuner.stats.warmup import open_warm_up, warm_up

_FEW = 8
# This quantile of latencies stands for the time in service, without waiting.
_UNDELAYED = 0.05


@dataclass(frozen=True)
class Window:
    """Successful requests that count, in the order in which they ended.

    Attributes:
        start_ns: When the last request before the window ended.
        done_ns: (n,) completion times, never decreasing.
        latency_ms: (n,) latencies.
    """

    start_ns: int
    done_ns: npt.NDArray[np.int64]
    latency_ms: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.done_ns)

    @property
    def end_ns(self) -> int:
        """When the last request ended; the start of an empty window."""
        return int(self.done_ns[-1]) if len(self) else self.start_ns

    @property
    def length_s(self) -> float:
        """Seconds from the start to the last completion, at least 1 ns."""
        return max(1, self.end_ns - self.start_ns) / 1e9

    def covers(self, samples: Samples) -> npt.NDArray[np.bool_]:
        """(m,) which samples, failed ones included, ended in the window."""
        first_ns = min(self.start_ns + 1, self.done_ns[0]) if len(self) else self.start_ns + 1
        return (samples.done_ns >= first_ns) & (samples.done_ns <= self.end_ns)


def ends_by_itself(load: Load) -> bool:
    """Whether a load ends by itself (a ramp, a recording without repeats), so that it is measured as a whole."""
    return isinstance(load, Ramp) or (isinstance(load, Replay) and load.period_ns is None)


def steady_window(samples: Samples, load: Load) -> Window:
    """The successful requests after warm-up; all of them if there are few.

    Ramps and recordings are never steady, so all of their requests count.
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
    """All successful requests, from the time when the first request was sent or due."""
    began_ns = int(samples.sent_ns.min()) if len(samples) else 0
    done_ns = samples.done_ns[samples.ok]
    return Window(began_ns, done_ns, (done_ns - samples.sent_ns[samples.ok]) / 1e6)


def _in_service(whole: Window) -> int:
    """Requests of an open loop in service at once, by Little's law: rate times time in service.

    The mean latency would include waiting times.
    """
    service_s = float(np.quantile(whole.latency_ms, _UNDELAYED)) / 1e3
    return int(len(whole) / whole.length_s * service_s)


def _between_batches(whole: Window, samples: Samples, *, first: int, batch: int) -> Window:
    """The window without the first requests, and without partial batches at its ends.

    A batch has at most `batch` requests, and ends before the widest gap between completions. The gap after the last
    request is the time since its completion.
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
    """The number of completions before the widest of `reach` gaps; the first gap is before index `place`."""
    return place + int(np.argmax(np.diff(ends_ns[place - 1 : place + reach])))
