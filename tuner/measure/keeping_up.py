"""Whether the server kept up with an open loop."""

from __future__ import annotations

import math

from tuner.core.loads import Concurrency, Load, OpenLoop, Ramp, RequestRate
from tuner.core.record import Interval
from tuner.load.protocols import Samples
from tuner.stats.rates import growth
from tuner.stats.window import Window

# Relative tolerance: requests under way at the ends of a short window change its rate.
_FEW = 0.05
# Tolerance, in standard deviations of a Poisson count.
_CHANCE = 3.0
# Latency growth, in s per s, below which latency is taken to approach a steady state.
_GROWTH = 0.01


def kept_up(requests_per_s: Interval, samples: Samples, window: Window, load: Load) -> bool | None:
    """Whether requests were answered as fast as they were due; None in a closed loop.

    Three conditions must hold. (1) The rate of answers is within 5 % of the offered rate, or below it by no more than
    chance: both by its 95 % interval and by 3 standard deviations of a Poisson count. (2) At a constant rate, latency
    does not grow (95 % interval). (3) At the end, at most 5 % of the requests still wait to be sent. Failed requests
    count as not answered.

    Args:
        requests_per_s: The rate of successful requests.
        samples: All samples of the load, or of the part of it that the window belongs to.
        window: The successes that count; not empty.
        load: The load that was offered.
    """
    if isinstance(load, Concurrency):
        return None
    offered = _offered_per_s(samples, load)
    short = offered - requests_per_s.value
    by_chance = requests_per_s.high >= offered and short * window.length_s <= _CHANCE * math.sqrt(len(window))
    as_fast = short <= _FEW * offered or by_chance
    falls_behind = isinstance(load, RequestRate) and growth(window).low > 0 and growth(window).value > _GROWTH
    # A few may just be due, or wait for a full connection.
    backs_up = samples.waiting > _FEW * len(samples)
    return as_fast and not falls_behind and not backs_up


def _offered_per_s(samples: Samples, load: OpenLoop) -> float:
    """Requests due per second; for a recording, over the part that was played."""
    if isinstance(load, RequestRate):
        return load.per_s
    if isinstance(load, Ramp):
        return (load.from_per_s + load.to_per_s) / 2
    return (len(samples) - 1) / max(1e-9, float(samples.sent_ns.max() - samples.sent_ns.min()) / 1e9)
