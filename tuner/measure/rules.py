"""When a load level has been measured well enough."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuner.core.precision import DEFAULT, Precision
from tuner.core.slo import NO_LIMIT, SLO, Percentile
from tuner.measure.rivals import NOBODY, Rivals

# Nobody waits longer than this many times for a number.
_LONGEST = 36.0


@dataclass(frozen=True)
class LevelRules:
    """When a load level has been measured well enough.

    It ends when throughput and the percentile that counts are both known precisely enough, or at the latest time. A
    model so slow that this gives it less than `min_requests`, or in a closed loop less than `min_rounds` of all
    requests under way, or less than `slow_requests` where that is given, gets more time, up to `slow_max_s`. The
    throughput of an open loop is known before: it is what is offered, or the server does not keep up. A load that ends
    by itself is measured to its end, and a recording that begins anew once as a whole, at the least.

    Attributes:
        percentile: The latency percentile that counts.
        throughput_precision: Half width of throughput's interval, as a share of it; closed loops only.
        latency_precision: The same for the percentile.
        first_look_s: When to look for the first time; never the last look.
        min_s: The shortest measurement.
        max_s: The longest, but for a slow model.
        slow_max_s: The longest for a slow model.
        min_requests: Successful requests to wait for.
        narrow_looks: At so many looks in a row what counts must be known precisely enough: who ends at the first picks
            what is narrow by chance.
        slow_requests: With so many answers the longest measurement is long enough; None: with `min_requests` and
            `min_rounds`.
        min_rounds: How often all requests under way should have been answered; closed loops only.
        request_timeout_s: The engine's deadline of a request; a server silent for so long hangs.
        slo: Limits to test; a load that surely breaks one is known well enough, and one that may or may not is not.
        rivals: Who surely does worse than these is known well enough.
    """

    percentile: Percentile = "p99"
    throughput_precision: float = DEFAULT.throughput
    latency_precision: float = DEFAULT.latency
    first_look_s: float = 0.15
    min_s: float = 0.4
    max_s: float = 10.0
    slow_max_s: float = 30.0
    min_requests: int = 20
    slow_requests: int | None = None
    min_rounds: int = 4
    narrow_looks: int = 2
    request_timeout_s: float = 30.0
    slo: SLO = NO_LIMIT
    rivals: Rivals = NOBODY

    def to(self, precision: Precision) -> LevelRules:
        """The same rules where they are for the default precision: half as wide an interval takes four times as long.

        Less precise than by default, they may take as long, and end as soon as they can.
        """
        throughput, latency = precision.throughput / DEFAULT.throughput, precision.latency / DEFAULT.latency
        longer = min(_LONGEST, max(1.0, min(throughput, latency) ** -2))
        return replace(
            self,
            throughput_precision=throughput * self.throughput_precision,
            latency_precision=latency * self.latency_precision,
            max_s=longer * self.max_s,
            slow_max_s=max(self.slow_max_s, longer * self.max_s),
        )
