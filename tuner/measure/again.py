"""Which points to measure again, and which of two measurements of the same load to keep."""

from __future__ import annotations

from tuner.measure.doubts import Gate
from tuner.measure.points import OperatingPoint
from tuner.stats.window import ends_by_itself

# What took longer is not done twice unasked.
_LONGEST_S = 60.0


class Again:
    """Remembers of a session which gates fail however often a load is measured: for those alone it is done once."""

    def __init__(self) -> None:
        self._lasting: set[Gate] = set()

    def pays(self, point: OperatingPoint) -> bool:
        """Whether another measurement may leave fewer doubts than this one, and costs no more than a level does."""
        failed = {doubt.gate for doubt in point.doubts}
        return bool(failed - self._lasting) and point.window_s <= _LONGEST_S and not ends_by_itself(point.load)

    def better(self, first: OperatingPoint, second: OperatingPoint) -> OperatingPoint:
        """The one with fewer doubts, or else the second; it knows those about the other."""
        failed = [{doubt.gate for doubt in point.doubts} for point in (first, second)]
        self._lasting |= failed[0] & failed[1]
        kept, discarded = (first, second) if len(failed[0]) < len(failed[1]) else (second, first)
        return kept.model_copy(update={"discarded": discarded.doubts})
