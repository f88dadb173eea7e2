"""How precisely numbers should be known."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)%")
_LARGEST = 0.5


@dataclass(frozen=True)
class Precision:
    """Half widths of 95 % intervals, as shares of the values.

    Attributes:
        throughput: Of throughput.
        latency: Of the percentile that counts.
    """

    throughput: float = 0.03
    latency: float = 0.10

    @classmethod
    def parse(cls, text: str) -> Precision:
        """Read `3%,10%`, throughput and percentile, or `3%`, throughput alone.

        Raises:
            ValueError: one line that says what would be right.
        """
        parts = [_PART.fullmatch(part.strip()) for part in text.split(",")]
        if len(parts) > 2 or None in parts:
            raise ValueError(
                f"{text!r} is no precision; write it as 3%, of throughput, or 3%,10%, of the percentile, too"
            )
        shares = [float(part[1]) / 100 for part in parts if part]
        if not all(0 < share <= _LARGEST for share in shares):
            raise ValueError(f"{text!r} is not above 0 and at most {_LARGEST:.0%}")
        return cls(*shares)

    def __str__(self) -> str:
        return f"{100 * self.throughput:g}%,{100 * self.latency:g}%"


DEFAULT = Precision()
