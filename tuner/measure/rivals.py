"""What others have reached already: who is surely beaten by them need not be measured any better."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.record import Interval

# So much better in both, that what differs from launch to launch, 8 % and more of a machine that is not alone, is not
# taken for a victory.
_MARGIN = 1.25


@dataclass(frozen=True)
class Rivals:
    """Points of other candidates.

    Attributes:
        points: Of each its throughput in inferences/s, and its latency in ms, at the percentile that counts.
    """

    points: tuple[tuple[float, float], ...] = ()

    def beat(self, throughput: Interval, latency_ms: Interval) -> bool:
        """Whether one of them surely has the higher throughput at the lower latency, both by 25 % and more."""
        return any(
            rate > _MARGIN * throughput.high and _MARGIN * slowness_ms < latency_ms.low
            for rate, slowness_ms in self.points
        )


NOBODY = Rivals()
