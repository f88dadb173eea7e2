"""When answers stop coming: to end a measurement then, or just after, would leave the stop out of the numbers."""

from __future__ import annotations

import numpy as np

from tuner.core.loads import Concurrency, Load
from tuner.load.protocols import Samples
from tuner.measure.failing import silence_s

# Longer than this beyond the longest request seen, no answer means that something has stopped.
_STILL_S = 0.05
# Of a stop: who still has to wait so long is there because of it.
_CAUGHT_UP, _BECAUSE = 0.25, 1.1


def is_still(samples: Samples, load: Load) -> bool:
    """Whether answers have stopped coming.

    Args:
        samples: All of the load so far, with a success at the least.
        load: What is offered.
    """
    longest_s = float((samples.done_ns - samples.sent_ns)[samples.ok].max()) / 1e9
    return silence_s(samples) > 2 * (longest_s + _longest_pause_s(samples, load)) + _STILL_S


def is_catching_up(samples: Samples, load: Load) -> bool:
    """Whether an open loop is answered late because of a stop that is over: what was due meanwhile is still coming.

    That is when the latest answer took about as long as the longest stop, or a good part of it. A server that cannot
    keep up is not meant: it is late by more than it ever stopped.

    Args:
        samples: All of the load so far, with a success at the least.
        load: What is offered.
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
    """The longest time in which nothing was due, so that nothing could be answered."""
    if isinstance(load, Concurrency):
        return 0.0
    return float(np.diff(np.sort(samples.sent_ns), prepend=samples.sent_ns.min()).max()) / 1e9
