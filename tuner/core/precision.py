"""The required precision of measurements."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.quantities import parse_share

_LARGEST = 0.5


@dataclass(frozen=True)
class Precision:
    """Half widths of 95 % intervals, as shares of the values.

    Attributes:
        throughput: Relative half width for throughput.
        latency: Relative half width for the latency percentile.
    """

    throughput: float = 0.03
    latency: float = 0.10

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Read `3%,10%`, throughput and percentile, or `3%`, throughput alone.

        Raises:
            ValueError: the text is not valid; the message shows a valid one.
        """
        try:
            shares = [parse_share(part) for part in text.split(",")]
        except ValueError:
            shares = []
        if not 1 <= len(shares) <= 2:
            raise ValueError(
                f"{text!r} is not a precision; write 3% (throughput) or 3%,10% (throughput and latency percentile)"
            )
        if not all(0 < share <= _LARGEST for share in shares):
            raise ValueError(f"precision must be > 0% and <= {_LARGEST:.0%}, got {text!r}")
        return cls(*shares)

    def __str__(self) -> str:
        return f"{100 * self.throughput:g}%,{100 * self.latency:g}%"


DEFAULT = Precision()
