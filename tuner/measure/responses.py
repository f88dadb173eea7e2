"""When the responses came of a model that gives any number of them to a request."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tuner.core.record import Interval, Record
from tuner.core.slo import PERCENTILES, Percentile, share_of
from tuner.load.protocols import Samples
from tuner.stats.latencies import percentiles
from tuner.stats.window import Window


class ResponseTimes(Record):
    """The responses to requests that succeeded.

    Attributes:
        time_to_first_ms: From when a request was sent, or due, to its first response; empty when none had any.
        inter_response_ms: From one response of a request to the next, over all requests of the load; empty when none
            had a second.
        per_request: Mean number of responses to a request.
        per_s: Responses a second.
    """

    time_to_first_ms: Mapping[Percentile, Interval]
    inter_response_ms: Mapping[Percentile, float]
    per_request: float
    per_s: float


def response_times(samples: Samples, window: Window, requests_per_s: float) -> ResponseTimes | None:
    """What the samples say of responses; None when the model gives one to each request.

    Args:
        samples: All of the load.
        window: The part of it that counts; not empty.
        requests_per_s: At which it was answered.
    """
    seen = samples.responses
    if seen is None:
        return None
    counted = samples.ok & window.covers(samples)
    answered = counted & (seen.count > 0)
    first_ms = (seen.first_ns - samples.sent_ns)[answered] / 1e6
    firsts = Window(window.start_ns, samples.done_ns[answered], first_ms)
    gaps_ms = seen.gap_us / 1e3
    per_request = float(seen.count[counted].mean())
    return ResponseTimes(
        time_to_first_ms=percentiles(firsts) if len(firsts) else {},
        inter_response_ms={name: float(np.quantile(gaps_ms, share_of(name))) for name in PERCENTILES if len(gaps_ms)},
        per_request=per_request,
        per_s=per_request * requests_per_s,
    )
