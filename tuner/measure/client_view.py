"""CPU usage and lateness of the load generator, to distinguish its limits from the server's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from tuner.core.loads import Concurrency, Load
from tuner.core.quantities import format_ms
from tuner.core.record import Record
from tuner.core.slo import Percentile, share_of
from tuner.load.protocols import Samples
from tuner.stats.window import Window

# Above this share of a core, answers wait until the client reads them.
_BUSY = 0.70
# If a late client used less than this share of a core, other processes kept it from running.
_IDLE = 0.35
# A send lag that changes results: in ms, and as a share of the latency. Both must be exceeded.
_LATE_MS, _LATE = 1.0, 0.10
# With fewer requests, p99 of the send lag is the lag of a single request.
_FEWEST_FOR_P99 = 100
_LAG_PERCENTILES: tuple[Percentile, ...] = ("p50", "p99")


class ClientView(Record):
    """The load generator during an operating point.

    Attributes:
        cpu: CPU usage of each of its processes, as a share of one core.
        processes: Number of processes that offered the load.
        send_lag_ms: How much later than due requests were sent, p50 and p99, in ms; None in a closed loop.
        bound: Why the client, not the server, was the limit; None if it was not.
    """

    cpu: float
    processes: int = 1
    send_lag_ms: Mapping[Percentile, float] | None = None
    bound: str | None = None

    @property
    def held_up(self) -> bool:
        """Whether the client was the limit because other processes kept the machine busy."""
        return self.bound is not None and self.cpu <= _IDLE


def client_view(samples: Samples, window: Window, load: Load, percentile: Percentile = "p99") -> ClientView:
    """Judge the load generator by the samples of a load.

    The client was the limit if each process took more than 70 % of a core. In an open loop of at least 100 requests, it
    was also the limit if its lateness is part of the latency. (Latency counts from the due time.) That is so if the
    percentile of the send lag is above 1 ms and above 10 % of that of latency. Requests that waited because all
    connections were full do not count, as that is the server's limit.

    Args:
        samples: All samples of the load.
        window: The part of them that counts; not empty.
        load: The load that was offered.
        percentile: The percentile that decides.
    """
    cpu = samples.cpu_s / samples.wall_s / samples.processes
    lag_ms = None
    if not isinstance(load, Concurrency):
        lags_ms = samples.lag_us[window.covers(samples)] / 1e3
        lag_ms = {name: float(np.quantile(lags_ms, share_of(name))) for name in _LAG_PERCENTILES}
    bound = _busy(cpu, samples.processes)
    if lag_ms and not bound and not samples.waiting and len(window) >= _FEWEST_FOR_P99:
        lag, latency = (float(np.quantile(values, share_of(percentile))) for values in (lags_ms, window.latency_ms))
        bound = _late(lag, latency, percentile, cpu)
    return ClientView(cpu=cpu, processes=samples.processes, send_lag_ms=lag_ms, bound=bound)


def _busy(cpu: float, processes: int) -> str | None:
    if cpu <= _BUSY:
        return None
    where = f" in each of {processes} processes" if processes > 1 else ""
    return f"the load generator took {cpu:.0%} of a core{where}"


def _late(lag_ms: float, latency_ms: float, percentile: Percentile, cpu: float) -> str | None:
    if lag_ms <= max(_LATE_MS, _LATE * latency_ms):
        return None
    others = "; other processes kept the machine busy" if cpu <= _IDLE else ""
    return f"{percentile} of the send lag was {format_ms(lag_ms)}{others}"


def clients_together(clients: Sequence[ClientView]) -> ClientView:
    """Pool several rounds: means, and the first limit of the client in any of them."""
    lags = [client.send_lag_ms for client in clients if client.send_lag_ms]
    return ClientView(
        cpu=fmean(client.cpu for client in clients),
        processes=max(client.processes for client in clients),
        send_lag_ms={name: fmean(lag[name] for lag in lags) for name in lags[0]} if lags else None,
        bound=next((client.bound for client in clients if client.bound), None),
    )
