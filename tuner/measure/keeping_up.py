"""Whether the server answered an open loop as fast as it asked."""

from __future__ import annotations

import math

from tuner.core.loads import Concurrency, Load, OpenLoop, Ramp, RequestRate
from tuner.core.record import Interval
from tuner.load.protocols import Samples
from tuner.stats.rates import growth
from tuner.stats.window import Window

# The rate over a short window is off by what was under way at either end of it.
_FEW = 0.05
# Standard deviations of a Poisson count.
_CHANCE = 3.0
# Latency that grows by less than 10 ms a second is on its way to a steady state, if it grows at all.
_GROWTH = 0.01


def kept_up(requests_per_s: Interval, samples: Samples, window: Window, load: Load) -> bool | None:
    """Whether requests were answered as fast as they were due; None in a closed loop, where they wait for each other.

    They were when their rate is within 5 % of what was offered, or not below it by more than chance: neither by the
    spread of the answers, nor by that of Poisson arrivals, so that answers that come very unevenly excuse nothing. And
    when at a steady rate latency did not grow by more than chance; and when no more than 5 % still wait to be sent in
    the end. Requests that failed are not answered.

    Args:
        requests_per_s: The rate of requests that succeeded.
        samples: All of the load, or of the part of it that the window is of.
        window: The successes that count; not empty.
        load: What was offered then.
    """
    if isinstance(load, Concurrency):
        return None
    offered = _offered_per_s(samples, load)
    short = offered - requests_per_s.value
    by_chance = requests_per_s.high >= offered and short * window.length_s <= _CHANCE * math.sqrt(len(window))
    as_fast = short <= _FEW * offered or by_chance
    falls_behind = isinstance(load, RequestRate) and growth(window).low > 0 and growth(window).value > _GROWTH
    # One or another may just be due, or its connection full for a moment.
    backs_up = samples.waiting > _FEW * len(samples)
    return as_fast and not falls_behind and not backs_up


def _offered_per_s(samples: Samples, load: OpenLoop) -> float:
    """Requests that were due in a second; of a recording, as far as it was played."""
    if isinstance(load, RequestRate):
        return load.per_s
    if isinstance(load, Ramp):
        return (load.from_per_s + load.to_per_s) / 2
    return (len(samples) - 1) / max(1e-9, float(samples.sent_ns.max() - samples.sent_ns.min()) / 1e9)
