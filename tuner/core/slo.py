"""The SLO: latency limits that the best config must hold, such as p99 <= 25 ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import RootModel, field_validator
from pydantic.config import ConfigDict

from tuner.core.quantities import LONGEST_S, parse_duration

Percentile = Literal["p50", "p90", "p95", "p99"]
PERCENTILES: tuple[Percentile, ...] = get_args(Percentile)
_CHOICES = f"{', '.join(PERCENTILES[:-1])} or {PERCENTILES[-1]}"


def share_of(name: Percentile) -> float:
    """The share of requests below a percentile: 0.99 for `p99`."""
    return int(name.removeprefix("p")) / 100


class SLO(RootModel[dict[Percentile, float]]):
    """Latency limits in ms, by percentile; all must hold. Empty: no limit.

    Reads `{"p99": "25ms"}`, `{"p99": 25.0}` (the stored form, in ms), and the command line's `["p99=25ms"]`.
    """

    model_config = ConfigDict(frozen=True)
    root: dict[Percentile, float] = {}

    @field_validator("root", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return cls.parse(value).root
        if not isinstance(value, Mapping):
            raise ValueError("write an SLO as {p99: 25ms}")  # noqa: TRY004 (pydantic wants ValueError)
        return {_percentile(key): _limit_ms(limit) for key, limit in value.items()}

    @classmethod
    def parse(cls, texts: list[str] | tuple[str, ...]) -> SLO:
        """Read the command line's form, `p99=25ms` each.

        Raises:
            ValueError: the text is wrong; the message is one line with the fix.
        """
        limits: dict[Any, Any] = {}
        for text in texts:
            name, equals, limit = str(text).partition("=")
            if not equals:
                raise ValueError(f"{text!r} is not an SLO; write it as p99=25ms")
            if name.strip() in limits:
                raise ValueError(f"{name.strip()} is given twice")
            limits[name.strip()] = limit
        return cls({_percentile(name): _limit_ms(limit) for name, limit in limits.items()})

    @property
    def limits(self) -> tuple[tuple[Percentile, float], ...]:
        """The limits in ms, in order of percentile."""
        return tuple((p, self.root[p]) for p in PERCENTILES if p in self.root)

    @property
    def percentile(self) -> Percentile:
        """The percentile of the SLO: the highest with a limit, or p99 without limits."""
        return self.limits[-1][0] if self.root else "p99"

    def excess(self, latency_ms: Mapping[Percentile, float]) -> float:
        """The largest excess over a limit, as a share of the limit; <= 0: the SLO holds. -1 without limits."""
        return max((latency_ms[p] / limit - 1 for p, limit in self.limits), default=-1.0)

    def holds(self, latency_ms: Mapping[Percentile, float]) -> bool:
        """Whether every limit holds."""
        return self.excess(latency_ms) <= 0

    def __str__(self) -> str:
        return ", ".join(f"{p} <= {limit:g} ms" for p, limit in self.limits) or "none"


NO_LIMIT = SLO()


def _percentile(name: Any) -> Percentile:
    if name not in PERCENTILES:
        raise ValueError(f"{name!r} is not a supported percentile; write {_CHOICES}")
    return name  # type: ignore[no-any-return]  # checked above


def _limit_ms(limit: Any) -> float:
    if isinstance(limit, str):
        return parse_duration(limit, units=("ms",)) * 1e3
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= LONGEST_S * 1e3:
        raise ValueError(f"{limit!r} is not a latency limit; write it as 25ms")
    return float(limit)
