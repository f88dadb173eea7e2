"""Response times of decoupled models, which give any number of responses to a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean

import numpy as np

from tuner.core.record import Interval, Record
from tuner.core.slo import PERCENTILES, Percentile, share_of
from tuner.load.protocols import Samples
from tuner.stats.latencies import percentiles
from tuner.stats.launches import mean_of_launches
from tuner.stats.window import Window


class ResponseTimes(Record):
    """The responses to successful requests.

    Attributes:
        time_to_first_ms: From sending a request (or its due time) to its first response, in ms; empty without any.
        inter_response_ms: Between consecutive responses of a request, in ms, over all requests; empty without any.
        per_request: Mean number of responses to a request.
        per_s: Responses per second.
    """

    time_to_first_ms: Mapping[Percentile, Interval]
    inter_response_ms: Mapping[Percentile, float]
    per_request: float
    per_s: float


def response_times(samples: Samples, window: Window, requests_per_s: float) -> ResponseTimes | None:
    """The response times of a decoupled model; None for other models.

    Args:
        samples: All samples of the load.
        window: The part of them that counts; not empty.
        requests_per_s: The rate of successful requests.
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


def responses_together(rounds: Iterable[ResponseTimes | None]) -> ResponseTimes | None:
    """Pool several measurements at one load, with equal weights."""
    times = [responses for responses in rounds if responses]
    if not times:
        return None
    firsts = [responses.time_to_first_ms for responses in times if responses.time_to_first_ms]
    gaps = [responses.inter_response_ms for responses in times if responses.inter_response_ms]
    return ResponseTimes(
        time_to_first_ms={p: mean_of_launches([first[p] for first in firsts]) for p in PERCENTILES if firsts},
        inter_response_ms={p: fmean(gap[p] for gap in gaps) for p in PERCENTILES if gaps},
        per_request=fmean(responses.per_request for responses in times),
        per_s=fmean(responses.per_s for responses in times),
    )
