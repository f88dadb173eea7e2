"""Makes an operating point from samples."""

from __future__ import annotations

import math

import numpy as np

from tuner.core.loads import Concurrency, Load, OpenLoop, Ramp, RequestRate
from tuner.core.record import Interval
from tuner.core.slo import NO_LIMIT, SLO, Percentile
from tuner.load.protocols import Samples
from tuner.measure.client_view import client_view
from tuner.measure.failing import most_frequent_error
from tuner.measure.meter import Meter
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.quality_checks import warnings_in
from tuner.measure.quality_warnings import QualityWarning
from tuner.measure.responses import response_times
from tuner.stats.histogram import Histogram
from tuner.stats.latencies import percentiles, slo_tests
from tuner.stats.rates import growth
from tuner.stats.window import Window

# Relative tolerance: requests under way at the ends of a short window change its rate.
_FEW = 0.05
# Tolerance, in standard deviations of a Poisson count.
_CHANCE = 3.0
# Latency growth, in s per s, below which latency is taken to approach a steady state.
_GROWTH = 0.01


def operating_point(
    samples: Samples,
    window: Window,
    load: Load,
    *,
    requests_per_s: Interval,
    batch_size: int = 1,
    server: ServerBreakdown | None = None,
    meter: Meter | None = None,
    slo: SLO = NO_LIMIT,
    percentile: Percentile = "p99",
    noticed: tuple[QualityWarning, ...] = (),
) -> OperatingPoint:
    """The operating point of a load, with its quality warnings.

    Intervals allow for the machine's varying speed. The throughput of an open loop does not need this, as it is the
    offered rate.

    Args:
        samples: All samples of the load.
        window: The part of them that counts; not empty.
        load: The load that was offered.
        requests_per_s: The rate of successful requests.
        batch_size: Inferences in each request.
        server: The server's own statistics.
        meter: Measures resources of the server, its GPUs and this machine; None: not measured.
        slo: The limits to test.
        percentile: The latency percentile that decides.
        noticed: Quality warnings that the samples gave.
    """
    meter = meter or Meter()
    speed, resources = meter.machine_speed(window), meter.server_resources(window)

    def allowed(interval: Interval) -> Interval:
        return speed.allowed_for(interval, resources.cpu_cores if resources else None) if speed else interval

    inferences_per_s = requests_per_s.times(batch_size)
    received = samples.received[samples.ok & window.covers(samples)]
    errors = int(np.count_nonzero(~samples.ok & (samples.done_ns > window.start_ns)))
    point = OperatingPoint(
        load=load,
        throughput=allowed(inferences_per_s) if isinstance(load, Concurrency) else inferences_per_s,
        latency_ms={name: allowed(interval) for name, interval in percentiles(window).items()},
        requests=len(window),
        errors=errors,
        error=most_frequent_error(samples) if errors else None,
        window_s=window.length_s,
        batch_size=batch_size,
        received_bytes_per_s=float(received.mean()) * requests_per_s.value,
        histogram=Histogram.of(window.latency_ms),
        client=client_view(samples, window, load, percentile),
        limits=slo_tests(window, slo),
        kept_up=kept_up(requests_per_s, samples, window, load),
        server=server,
        responses=response_times(samples, window, requests_per_s.value),
        server_resources=resources,
        gpu=meter.gpu_usage(window, len(window) * batch_size),
        machine=meter.machine_load(window, samples.cpu_s / samples.wall_s),
        machine_speed=speed,
    )
    return point.model_copy(update={"warnings": (*noticed, *warnings_in(point))})


def kept_up(requests_per_s: Interval, samples: Samples, window: Window, load: Load) -> bool | None:
    """Whether requests were answered as fast as they were due; None in a closed loop.

    Three conditions must hold. (1) The rate of answers is within 5 % of the offered rate. Or it is lower only by
    chance: within its 95 % interval and 3 standard deviations of a Poisson count. (2) At a constant rate, latency does
    not grow (95 % interval). (3) At the end, at most 5 % of the requests still wait to be sent. Failed requests count
    as not answered.

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
    falls_behind = isinstance(load, RequestRate) and (trend := growth(window)).low > 0 and trend.value > _GROWTH
    # A few requests may just have become due, or wait for a full connection.
    backs_up = samples.waiting > _FEW * len(samples)
    return as_fast and not falls_behind and not backs_up


def _offered_per_s(samples: Samples, load: OpenLoop) -> float:
    """Requests due per second; for a recording, over the part that was played."""
    if isinstance(load, RequestRate):
        return load.per_s
    if isinstance(load, Ramp):
        return (load.from_per_s + load.to_per_s) / 2
    return (len(samples) - 1) / max(1e-9, float(samples.sent_ns.max() - samples.sent_ns.min()) / 1e9)
