"""Quality checks: tests that every operating point must pass before its numbers can be trusted.

A check that fails gives a `QualityWarning`: the point is kept and marked with the reason. `warnings_in` checks the
point itself (failures, cache, client, GPUs, machine); `warnings_about` checks the samples of a steady load.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.quantities import format_ms, format_number
from tuner.load.protocols import Samples
from tuner.measure.gpu_view import GpuUsage
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.measure.server_statistics import Reads
from tuner.stats.trend import Trend, gap_trend, latency_trend
from tuner.stats.window import Window

# Relative tolerance of requests under way (Little's law), and of the server's request count.
_LITTLE = 0.05
_COUNT = 0.02
# The untimed work between an answer and the next request takes at most this share of the client's CPU time.
_BETWEEN = 0.5
# With a larger share of failures, clients pause between requests, so Little's law does not apply.
_FEW_FAILURES = 0.02
# Share of all processors that other load may take, and a tolerance in s for process times, which have ticks of 10 ms.
_ELSEWHERE = 0.10
_GRAIN_S = 0.04
# If the server is on another machine, other load here matters only below this share of idle processors.
_NO_IDLE = 0.05
# Smaller numbers of cores are not reported.
_TOLD = 0.05
# Relative standard deviation of the machine's speed above which its measurements are not comparable.
_WANDER = 0.15
# Throttle reasons for heat or lack of power. A power cap and fixed clocks are permanent, so they give no warning.
_THROTTLED = {"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"}


def warnings_in(point: OperatingPoint) -> tuple[QualityWarning, ...]:
    """The warnings about a point itself: failures, cache hits, client, GPUs, and machine.

    Args:
        point: The operating point.
    """
    return tuple(_warnings_in(point))


def warnings_about(
    samples: Samples, window: Window, load: Load, reads: Reads | None, *, in_steps: bool = False, behind: bool = False
) -> tuple[QualityWarning, ...]:
    """The warnings about the samples of a steady load: Little's law, the server's request count, and drift.

    Little's law (J. D. C. Little, 1961): the mean number of requests under way is throughput times mean latency. In a
    closed loop it is the concurrency. The client's time between an answer and the next request is not part of it.
    Requests that are cut at the ends of the window make it uncertain; see `_tolerated_under_way`.

    A recording may have trends of its own, so it is not checked for drift.

    Args:
        samples: All samples of the load.
        window: The part of them that counts; not empty.
        load: The load that was offered.
        reads: The server's statistics at two moments; None: not available.
        in_steps: Whether the server counts each step of a request (`iterative_sequence`), so that its count cannot be
            compared.
        behind: Whether the server may still have answered requests of the previous load.
    """
    warnings = [
        _littles_law(samples, window, load) if isinstance(load, Concurrency) else None,
        _request_count(samples, load, reads, behind=behind) if reads and not in_steps else None,
        _drift(window, load),
    ]
    return tuple(warning for warning in warnings if warning)


def _warnings_in(point: OperatingPoint) -> Iterator[QualityWarning]:
    if point.errors:
        of = point.requests + point.errors
        yield QualityWarning(
            check=QualityCheck.FAILURES,
            reason=f"{point.errors:,} of {of:,} requests failed, most often with {point.error}",
        )
    if point.server and point.server.cache_hits:
        share = f"{point.server.cache_hits:,} of {point.server.requests:,} requests"
        yield QualityWarning(
            check=QualityCheck.CACHE_HITS, reason=f"the response cache, not the model, answered {share}"
        )
    if point.client.bound:
        whose = "" if point.client.held_up else "client-bound: "
        yield QualityWarning(check=QualityCheck.CLIENT_BOUND, reason=f"{whose}{point.client.bound}")
    if point.gpu and (reason := _throttled(point.gpu)):
        yield QualityWarning(check=QualityCheck.GPU_THROTTLED, reason=reason)
    if point.machine and (
        reason := _busy(point.machine, point.window_s, server_is_seen=point.server_resources is not None)
    ):
        yield QualityWarning(check=QualityCheck.MACHINE_LOAD, reason=reason)
    elif point.machine_speed and point.machine_speed.wander > _WANDER:
        wander = f"this machine's speed varied by {point.machine_speed.wander:.0%} (standard deviation)"
        yield QualityWarning(check=QualityCheck.MACHINE_LOAD, reason=f"load from elsewhere: {wander}")


def _throttled(usage: GpuUsage) -> str | None:
    by_gpu = [(view.gpu, sorted(_THROTTLED.intersection(view.throttle_reasons or ()))) for view in usage.gpus]
    named = [f"{gpu} was throttled: {', '.join(reasons)}" for gpu, reasons in by_gpu if reasons]
    return "; ".join(named) or None


def _busy(machine: MachineLoad, window_s: float, *, server_is_seen: bool) -> str | None:
    starves = machine.idle_cores < _NO_IDLE * machine.cores
    elsewhere = (machine.elsewhere_cores or 0.0) if server_is_seen or starves else 0.0
    if elsewhere + machine.stolen_cores <= _ELSEWHERE * machine.cores + _GRAIN_S / window_s:
        return None
    taken = [f"other processes used {elsewhere:.2g}"] if elsewhere >= _TOLD else []
    taken += [f"the hypervisor withheld {machine.stolen_cores:.2g}"] if machine.stolen_cores >= _TOLD else []
    return f"load from elsewhere: {' and '.join(taken)} of this machine's {machine.cores} cores"


def _littles_law(samples: Samples, window: Window, load: Concurrency) -> QualityWarning | None:
    inside = window.covers(samples)
    if np.count_nonzero(~samples.ok[inside]) > _FEW_FAILURES * np.count_nonzero(inside):
        return None
    latency_s = (samples.done_ns - samples.sent_ns)[inside] / 1e9
    under_way = float(latency_s.sum()) / window.length_s
    tolerated = _tolerated_under_way(latency_s, window.length_s) * load.requests
    busy = min(1.0, samples.cpu_s / samples.wall_s / samples.processes)
    between = _BETWEEN * busy * load.requests
    if -tolerated - between <= under_way - load.requests <= tolerated:
        return None
    reason = (
        f"Little's law: concurrency is {load.requests:,}, but throughput x mean latency is {format_number(under_way)}"
    )
    return QualityWarning(check=QualityCheck.LITTLES_LAW, reason=reason)


def _tolerated_under_way(latency_s: np.ndarray[tuple[int], np.dtype[np.float64]], length_s: float) -> float:
    """The relative tolerance of throughput times mean latency.

    It is 5 %, plus the error of requests that are cut at the ends of the window. A request that began before the window
    counts with all of its time, and one still under way at the end with none. The mean length of a request under way at
    a given moment is E[L^2] / E[L] (the inspection paradox). Half of it is on each side of the cut. So this much of the
    window's length is uncertain.
    """
    return _LITTLE + float(latency_s @ latency_s) / max(float(latency_s.sum()), 1e-12) / length_s


def _request_count(samples: Samples, load: Load, reads: Reads, *, behind: bool) -> QualityWarning | None:
    """Compare the server's and our count of successes between two reads of the server's statistics.

    The counts may differ by the requests under way at either read, and by requests that ended during a read.
    """
    if (counted := reads.requests) is None:
        return None
    done_ns = samples.done_ns[samples.ok]
    moments = [reads.first.asked_ns, reads.first.told_ns, reads.last.asked_ns, reads.last.told_ns]
    first_asked, first_told, last_asked, last_told = (
        int(count) for count in np.searchsorted(done_ns, moments, "right")
    )
    # The server still answers requests whose deadline has passed.
    given_up = len(samples) - len(done_ns)
    unsure = _COUNT * (last_told - first_asked) + _under_way(samples, load)
    if last_asked - first_told - unsure <= counted <= last_told - first_asked + unsure + given_up:
        return None
    why = "another server answered some"
    if counted > last_told - first_asked:
        why = "the server still answered requests of the previous load" if behind else "another client uses the model"
    reason = f"the server counted {counted:,} requests, this client {last_told - first_asked:,}: {why}"
    return QualityWarning(check=QualityCheck.REQUEST_COUNT, reason=reason)


def _under_way(samples: Samples, load: Load) -> float:
    """Requests under way: the concurrency; in an open loop 1 plus twice the mean by Little's law."""
    if isinstance(load, Concurrency):
        return load.requests
    return 1 + 2 * float((samples.done_ns - samples.sent_ns).sum()) / 1e9 / samples.wall_s


def _drift(window: Window, load: Load) -> QualityWarning | None:
    reason = None
    if isinstance(load, Concurrency | RequestRate) and (trend := latency_trend(window)):
        reason = f"mean latency was {_halves(trend)}"
    elif isinstance(load, Concurrency) and (trend := gap_trend(window)):
        reason = f"the mean time between answers was {_halves(trend)}"
    return QualityWarning(check=QualityCheck.DRIFT, reason=f"drift: {reason}") if reason else None


def _halves(trend: Trend) -> str:
    return f"{format_ms(trend.first)} in the first half of the window, {format_ms(trend.second)} in the second"
