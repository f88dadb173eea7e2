"""The operating points of a ramp, one for each slice of its time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tuner.core.loads import Ramp, RequestRate
from tuner.core.record import Interval
from tuner.load.protocols import Responses, Samples
from tuner.measure.meter import Meter
from tuner.measure.operating_point import operating_point
from tuner.measure.points import OperatingPoint
from tuner.stats.rates import poisson_rate, throughput
from tuner.stats.window import Window, whole_window

# With fewer completions, the rate is that of a Poisson count; else it is counted from completion to completion.
_FEW = 50


def timeline(
    samples: Samples, load: Ramp, *, slices: int = 10, batch_size: int = 1, meter: Meter | None = None
) -> tuple[OperatingPoint, ...]:
    """Cut a ramp into slices of equal time, each an operating point at its mean offered rate.

    Latencies of a slice are those of requests due in it. Its throughput counts requests answered in it. The client's
    CPU usage, inter-response times and the error message are of the whole ramp. Slices without a successful request are
    left out.

    Args:
        samples: All samples of the ramp.
        load: The ramp.
        slices: Number of slices.
        batch_size: Inferences in each request.
        meter: As for `operating_point`.
    """
    if not len(samples):
        return ()
    began_ns = int(samples.sent_ns.min())
    edges_ns = [began_ns + round(load.over_s * 1e9 * number / slices) for number in range(slices + 1)]
    points = []
    for number, (begin_ns, end_ns) in enumerate(pairwise(edges_ns)):
        due = _part(samples, (begin_ns <= samples.sent_ns) & (samples.sent_ns < end_ns))
        window = replace(whole_window(due), start_ns=begin_ns)
        if len(window):
            per_s = load.from_per_s + (load.to_per_s - load.from_per_s) * (number + 0.5) / slices
            rate = RequestRate(per_s, load.distribution)
            answered = _answered_per_s(whole_window(samples), begin_ns, end_ns)
            points.append(
                operating_point(due, window, rate, requests_per_s=answered, batch_size=batch_size, meter=meter)
            )
    return tuple(points)


def _part(samples: Samples, chosen: npt.NDArray[np.bool_]) -> Samples:
    seen = samples.responses
    return replace(
        samples,
        sent_ns=samples.sent_ns[chosen],
        done_ns=samples.done_ns[chosen],
        ok=samples.ok[chosen],
        lag_us=samples.lag_us[chosen],
        received=samples.received[chosen],
        responses=seen and Responses(seen.first_ns[chosen], seen.count[chosen], seen.gap_us),
    )


def _answered_per_s(whole: Window, begin_ns: int, end_ns: int) -> Interval:
    """The rate of answers between two times, counted from completion to completion if there are many."""
    first, last = np.searchsorted(whole.done_ns, [begin_ns, end_ns], side="right")
    if last - first < _FEW:
        return poisson_rate(int(last - first), (end_ns - begin_ns) / 1e9)
    start_ns = int(whole.done_ns[first - 1]) if first else begin_ns
    return throughput(Window(start_ns, whole.done_ns[first:last], whole.latency_ms[first:last]))
