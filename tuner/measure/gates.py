"""What every operating point has to pass, so that nobody takes a number for what it is not.

A gate that fails is a `Doubt`: the point stays, is marked, and says why. What a point itself says of failures, cache,
client, GPUs and machine is looked at in `doubts_in`; what takes the samples of a steady load, in `doubts_about`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.quantities import format_ms, format_number
from tuner.load.protocols import Samples
from tuner.measure.doubts import Doubt, Gate
from tuner.measure.gpu_view import GpuUsage
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import OperatingPoint
from tuner.measure.server_statistics import Reads
from tuner.stats.trend import Trend, gap_trend, latency_trend
from tuner.stats.window import Window

# The requests under way, and those counted, may differ by so much from what they should be.
_LITTLE = 0.05
_COUNT = 0.02
# Of what a client has to do, so much at the most lies between an answer and the next request, which all that came with
# it wait for; the rest is in the time of requests.
_BETWEEN = 0.5
# With more failures than this, clients rest between them.
_FEW_FAILURES = 0.02
# Of all processors. What the kernel tells of processes comes in ticks of 10 ms each.
_ELSEWHERE = 0.10
_GRAIN_S = 0.04
# Where the server is on another machine, other load on this one matters when it leaves the client no processor.
_NO_IDLE = 0.05
_TOLD = 0.05
# The standard deviation of a machine's own speed from which on it is hardly one machine.
_WANDER = 0.15
# Clocks that are held down because something is too hot, or gets too little. A power cap, or clocks that somebody has
# set, are what the GPU has to live with, today and tomorrow.
_THROTTLED = {"hw_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"}


def doubts_in(point: OperatingPoint) -> tuple[Doubt, ...]:
    """The doubts that follow from what a point says: failures, cache hits, the client, GPUs, and the machine.

    Args:
        point: What was measured.
    """
    return tuple(_doubts_in(point))


def doubts_about(
    samples: Samples, window: Window, load: Load, reads: Reads | None, *, in_steps: bool = False, behind: bool = False
) -> tuple[Doubt, ...]:
    """The doubts that follow from the samples of a steady load: Little's law, the server's count, and a trend.

    Little's law (1961): the requests under way are the rate at which they end times the mean time that they take.
    In a closed loop that is known beforehand. The client's time between an answer and the next request is missing from
    it, and the requests that are cut at either end of the window make it uncertain; see `_tolerated_under_way`.

    A recording has trends of its own, and is not asked for any.

    Args:
        samples: All of the load.
        window: The part of it that counts; not empty.
        load: What was offered.
        reads: The server's own counts at two moments; None: it has none.
        in_steps: Whether the model answers a request in any number of steps, each of which the server counts
            (`iterative_sequence`), so that its count says nothing.
        behind: Whether the server may still have answered requests of the load before.
    """
    found = [
        _littles_law(samples, window, load) if isinstance(load, Concurrency) else None,
        _request_count(samples, load, reads, behind=behind) if reads and not in_steps else None,
        _drift(window, load),
    ]
    return tuple(doubt for doubt in found if doubt)


def _doubts_in(point: OperatingPoint) -> Iterator[Doubt]:
    if point.errors:
        of = point.requests + point.errors
        yield Doubt(gate=Gate.FAILURES, reason=f"{point.errors:,} of {of:,} failed, most with {point.error}")
    if point.server and point.server.cache_hits:
        share = f"{point.server.cache_hits:,} of {point.server.requests:,} requests"
        yield Doubt(gate=Gate.CACHE_HITS, reason=f"the response cache answered {share}, and not the model")
    if point.client.bound:
        whose = "" if point.client.held_up else "client-bound, "
        yield Doubt(gate=Gate.CLIENT_BOUND, reason=f"{whose}{point.client.bound}")
    if point.gpu and (reason := _throttled(point.gpu)):
        yield Doubt(gate=Gate.GPU_THROTTLED, reason=reason)
    if point.machine and (
        reason := _busy(point.machine, point.window_s, server_is_seen=point.server_resources is not None)
    ):
        yield Doubt(gate=Gate.MACHINE_LOAD, reason=reason)
    elif point.machine_speed and point.machine_speed.wander > _WANDER:
        wander = f"this machine's own speed wandered by {point.machine_speed.wander:.0%}"
        yield Doubt(gate=Gate.MACHINE_LOAD, reason=f"load from elsewhere: {wander}, as if others used its processors")


def _throttled(usage: GpuUsage) -> str | None:
    told = [(view.gpu, sorted(_THROTTLED.intersection(view.throttle_reasons or ()))) for view in usage.gpus]
    named = [f"{gpu} was throttled: {', '.join(reasons)}" for gpu, reasons in told if reasons]
    return "; ".join(named) or None


def _busy(machine: MachineLoad, window_s: float, *, server_is_seen: bool) -> str | None:
    starves = machine.idle_cores < _NO_IDLE * machine.cores
    elsewhere = (machine.elsewhere_cores or 0.0) if server_is_seen or starves else 0.0
    if elsewhere + machine.stolen_cores <= _ELSEWHERE * machine.cores + _GRAIN_S / window_s:
        return None
    taken = [f"others took {elsewhere:.2g}"] if elsewhere >= _TOLD else []
    taken += [f"the hypervisor withheld {machine.stolen_cores:.2g}"] if machine.stolen_cores >= _TOLD else []
    return f"load from elsewhere: {' and '.join(taken)} of this machine's {machine.cores} cores"


def _littles_law(samples: Samples, window: Window, load: Concurrency) -> Doubt | None:
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
        f"Little's law: {load.requests:,} requests under way, but throughput x latency says {format_number(under_way)}"
    )
    return Doubt(gate=Gate.LITTLES_LAW, reason=reason)


def _tolerated_under_way(latency_s: np.ndarray[tuple[int], np.dtype[np.float64]], length_s: float) -> float:
    """By what share the product of throughput and latency may be off.

    5 %, and what is cut at the ends: of a request that began before the window all its time counts, and of one that is
    under way at the end none. The mean length of a request that is under way at a moment is E[L^2] / E[L] (the
    inspection paradox), half of which lies on each side of the cut; so that much of the window's length is uncertain.
    """
    return _LITTLE + float(latency_s @ latency_s) / max(float(latency_s.sum()), 1e-12) / length_s


def _request_count(samples: Samples, load: Load, reads: Reads, *, behind: bool) -> Doubt | None:
    """The successes between the server's two statements, by its count and by ours.

    They are the same but for the requests that are under way at either moment, which one of the two may have counted
    already, and what ended while the server was asked.
    """
    if (counted := reads.requests) is None:
        return None
    done_ns = samples.done_ns[samples.ok]
    moments = [reads.first.asked_ns, reads.first.told_ns, reads.last.asked_ns, reads.last.told_ns]
    first_asked, first_told, last_asked, last_told = (int(each) for each in np.searchsorted(done_ns, moments, "right"))
    # Those whose deadline has passed are answered all the same.
    given_up = len(samples) - len(done_ns)
    unsure = _COUNT * (last_told - first_asked) + _under_way(samples, load)
    if last_asked - first_told - unsure <= counted <= last_told - first_asked + unsure + given_up:
        return None
    why = "another server has answered some"
    if counted > last_told - first_asked:
        why = "requests of the load before are still answered" if behind else "another client uses the model"
    reason = f"the server counts {counted:,} requests, and this client {last_told - first_asked:,}: {why}"
    return Doubt(gate=Gate.REQUEST_COUNT, reason=reason)


def _under_way(samples: Samples, load: Load) -> float:
    """How many requests are under way, at the least 1; in an open loop as twice the mean, by Little's law."""
    if isinstance(load, Concurrency):
        return load.requests
    return 1 + 2 * float((samples.done_ns - samples.sent_ns).sum()) / 1e9 / samples.wall_s


def _drift(window: Window, load: Load) -> Doubt | None:
    reason = None
    if isinstance(load, Concurrency | RequestRate) and (trend := latency_trend(window)):
        reason = f"mean latency was {_halves(trend)}"
    elif isinstance(load, Concurrency) and (trend := gap_trend(window)):
        reason = f"the mean time between answers was {_halves(trend)}"
    return Doubt(gate=Gate.DRIFT, reason=f"drifts: {reason} half of the window") if reason else None


def _halves(trend: Trend) -> str:
    return f"{format_ms(trend.first)} in the first, and {format_ms(trend.second)} in the second"
