"""The base type of stored measurements, and numbers with their 95 % intervals."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self


class Record(BaseModel):
    """A frozen type that can be stored as JSON without loss; infinite numbers are stored as text."""

    # What is exported has its exported names wherever it is dumped.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", serialize_by_alias=True)

    def differing_fields(self, other: Self) -> tuple[str, ...]:
        """The names of the fields that differ, in order; empty: all are equal."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) != getattr(other, name))


class Interval(Record):
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def within_logs(cls, value: float, below: float, above: float | None = None) -> Interval:
        """An interval by its widths below and above the logarithm of the value; `above` is `below` by default."""
        return cls(value=value, low=value * math.exp(-below), high=value * math.exp(below if above is None else above))

    @property
    def relative_half_width(self) -> float:
        """Half of the interval's width as a share of the value; infinite for a value of 0."""
        return (self.high - self.low) / 2 / self.value if self.value > 0 else float("inf")

    @property
    def log_half_width(self) -> float:
        """Half width of the interval of the logarithm; equal to the relative half width up to 1.

        Example: a relative half width of 1,000 becomes 1 + log(1,000), about 8.
        """
        share = self.relative_half_width
        return share if share <= 1 else 1 + math.log(share)

    def times(self, factor: float) -> Interval:
        """Value and interval times a factor, as to change the unit."""
        return Interval(value=self.value * factor, low=self.low * factor, high=self.high * factor)
