"""What is stored of a measurement is made of frozen records, and numbers with their 95 % intervals."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen type that goes to disk and comes back as it was, infinite numbers, too: as texts, which JSON can say."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Interval(Record):
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def within_logs(cls, value: float, below: float, above: float | None = None) -> Interval:
        """A value whose logarithm may be so much less or more; without `above`, as much more as less."""
        return cls(value=value, low=value * math.exp(-below), high=value * math.exp(below if above is None else above))

    @property
    def relative_half_width(self) -> float:
        """Half of the interval's width over its value; infinite for a value of 0."""
        return (self.high - self.low) / 2 / self.value if self.value > 0 else float("inf")

    @property
    def log_half_width(self) -> float:
        """Half of the width of the interval of the logarithm: the relative one where that is small.

        A latency that may be a thousand times as long has a logarithm that is known to within 8, not to within 1,000.
        """
        share = self.relative_half_width
        return share if share <= 1 else 1 + math.log(share)

    def times(self, factor: float) -> Interval:
        """The same in another unit."""
        return Interval(value=self.value * factor, low=self.low * factor, high=self.high * factor)
