"""What others have reached already: who is surely beaten by them need not be measured any better."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.measure.record import Interval

# So much better in both, so that no luck of theirs and no drift of the machine is taken for a victory.
_MARGIN = 1.1


@dataclass(frozen=True)
class Rivals:
    """Points of other candidates.

    Attributes:
        points: Of each its throughput in inferences/s, and its latency in ms, at the percentile that counts.
    """

    points: tuple[tuple[float, float], ...] = ()

    def beat(self, throughput: Interval, latency_ms: Interval) -> bool:
        """Whether one of them surely has the higher throughput at the lower latency, both by 10 % and more."""
        return any(
            rate > _MARGIN * throughput.high and _MARGIN * slowness_ms < latency_ms.low
            for rate, slowness_ms in self.points
        )


NOBODY = Rivals()
