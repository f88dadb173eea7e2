"""Detects stalls: a measurement must not end during or just after one, or the stall would be missing from it."""

from __future__ import annotations

import numpy as np

from tuner.core.loads import Concurrency, Load
from tuner.load.protocols import Samples
from tuner.measure.failing import silence_s

# A stall is a silence of more than twice the longest request plus this, in seconds.
_STILL_S = 0.05
# A latest answer between these multiples of the longest stall is late because of it.
_CAUGHT_UP, _BECAUSE = 0.25, 1.1


def is_still(samples: Samples, load: Load) -> bool:
    """Whether answers have stopped coming.

    Args:
        samples: All samples of the load so far, with at least one success.
        load: The load that is offered.
    """
    longest_s = float((samples.done_ns - samples.sent_ns)[samples.ok].max()) / 1e9
    return silence_s(samples) > 2 * (longest_s + _longest_pause_s(samples, load)) + _STILL_S


def is_catching_up(samples: Samples, load: Load) -> bool:
    """Whether an open loop still answers requests that were due during a past stall.

    That is the case if the latest answer took between 0.25 and 1.1 times as long as the longest stall. A server that
    cannot keep up is later than that.

    Args:
        samples: All samples of the load so far, with at least one success.
        load: The load that is offered.
    """
    if isinstance(load, Concurrency):
        return False
    done_ns = samples.done_ns[samples.ok]
    latency_s = (done_ns - samples.sent_ns[samples.ok]) / 1e9
    stop_s = float(np.diff(done_ns, prepend=samples.sent_ns.min()).max()) / 1e9
    if stop_s <= 2 * (float(np.median(latency_s)) + _longest_pause_s(samples, load)) + _STILL_S:
        return False
    return _CAUGHT_UP * stop_s < float(latency_s[-1]) <= _BECAUSE * stop_s


def _longest_pause_s(samples: Samples, load: Load) -> float:
    """The longest time in seconds in which no request was due; 0 in a closed loop."""
    if isinstance(load, Concurrency):
        return 0.0
    return float(np.diff(np.sort(samples.sent_ns), prepend=samples.sent_ns.min()).max()) / 1e9
