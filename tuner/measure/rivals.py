"""Results of other candidates. A candidate that they clearly beat need not be measured more precisely."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.record import Interval

# A rival must be better by this factor in both objectives, well above the difference between launches (8 % and more on
# a shared machine).
_MARGIN = 1.25


@dataclass(frozen=True)
class Rivals:
    """Operating points of other candidates.

    Attributes:
        points: (merit, latency in ms at the SLO's percentile) of each; see `OperatingPoint.merit`.
    """

    points: tuple[tuple[float, float], ...] = ()

    def beat(self, merit: Interval, latency_ms: Interval) -> bool:
        """Whether a rival has at least 25 % more merit and 25 % less latency than the 95 % intervals allow."""
        return any(
            better > _MARGIN * merit.high and _MARGIN * slowness_ms < latency_ms.low
            for better, slowness_ms in self.points
        )


NOBODY = Rivals()
