"""Which operating points to re-measure on the same server, and which of two measurements to keep."""

from __future__ import annotations

from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.stats.window import ends_by_itself

# Longer measurements are not repeated, in seconds.
_LONGEST_S = 60.0


class RemeasurePolicy:
    """Decides on re-measuring within a session. A check that failed twice in a row no longer causes it."""

    def __init__(self) -> None:
        self._lasting: set[QualityCheck] = set()

    def pays(self, point: OperatingPoint) -> bool:
        """Whether a second measurement may have fewer warnings, at the cost of one load level."""
        failed = {warning.gate for warning in point.doubts}
        return bool(failed - self._lasting) and point.window_s <= _LONGEST_S and not ends_by_itself(point.load)

    def better(self, first: OperatingPoint, second: OperatingPoint) -> OperatingPoint:
        """The measurement with fewer warnings, or the second; its `discarded` has the warnings of the other."""
        failed = [{warning.gate for warning in point.doubts} for point in (first, second)]
        self._lasting |= failed[0] & failed[1]
        kept, discarded = (first, second) if len(failed[0]) < len(failed[1]) else (second, first)
        return kept.model_copy(update={"discarded": discarded.doubts})
