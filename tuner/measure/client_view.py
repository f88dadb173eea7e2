"""What the load generator says of itself, so that nobody takes its limits for the server's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tuner.core.loads import Concurrency, Load
from tuner.core.quantities import format_ms
from tuner.core.record import Record
from tuner.core.slo import Percentile, share_of
from tuner.load.protocols import Samples
from tuner.stats.window import Window

# Above this share of a core, answers wait for the client to read them.
_BUSY = 0.70
# Below it, who sends late was not given a core in time.
_IDLE = 0.35
# So much lateness, in ms and as a share of the latency, changes what is measured.
_LATE_MS, _LATE = 1.0, 0.10
# One in so many is the latest of all, and tells of a moment, not of the client.
_FEWEST_FOR_P99 = 100
_LAG_PERCENTILES: tuple[Percentile, ...] = ("p50", "p99")


class ClientView(Record):
    """The client's part in an operating point.

    Attributes:
        cpu: Share of one core that each of its processes took.
        processes: How many processes offered the load.
        send_lag_ms: How much later than due requests were sent, p50 and p99; None in a closed loop.
        bound: Why the client, not the server, was the limit; None when it was not.
    """

    cpu: float
    processes: int = 1
    send_lag_ms: Mapping[Percentile, float] | None = None
    bound: str | None = None

    @property
    def held_up(self) -> bool:
        """Whether it was the limit because others kept the machine busy: it had little to do itself."""
        return self.bound is not None and self.cpu <= _IDLE


def client_view(samples: Samples, window: Window, load: Load) -> ClientView:
    """What the samples of a load say of who offered it.

    The client was the limit where it took more than 70 % of a core in each process, or, in an open loop of 100 requests
    and more, where its lateness is a part of what is measured: p99 of the send lag above 1 ms, and above 10 % of p99 of
    the latency, which counts from when a request was due. But not where requests waited because all connections were
    full: that is the server's doing.

    Args:
        samples: All of the load.
        window: The part of it that counts; not empty.
        load: What was offered.
    """
    cpu = samples.cpu_s / samples.wall_s / samples.processes
    lag_ms = None
    if not isinstance(load, Concurrency):
        lags_ms = samples.lag_us[window.covers(samples)] / 1e3
        lag_ms = {name: float(np.quantile(lags_ms, share_of(name))) for name in _LAG_PERCENTILES}
    bound = _busy(cpu, samples.processes)
    if lag_ms and not bound and not samples.waiting and len(window) >= _FEWEST_FOR_P99:
        bound = _late(lag_ms["p99"], float(np.quantile(window.latency_ms, share_of("p99"))), cpu)
    return ClientView(cpu=cpu, processes=samples.processes, send_lag_ms=lag_ms, bound=bound)


def _busy(cpu: float, processes: int) -> str | None:
    if cpu <= _BUSY:
        return None
    each = f" in each of {processes} processes" if processes > 1 else ""
    return f"the load generator took {cpu:.0%} of a core{each}"


def _late(lag_p99_ms: float, latency_p99_ms: float, cpu: float) -> str | None:
    if lag_p99_ms <= max(_LATE_MS, _LATE * latency_p99_ms):
        return None
    others = "; others kept the machine busy" if cpu <= _IDLE else ""
    return f"one request in 100 was sent {format_ms(lag_p99_ms)} late or more{others}"
