"""The SLO: limits that the best config must hold, such as latency p99 <= 25 ms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

from pydantic import RootModel, field_validator
from pydantic.config import ConfigDict

from tuner.core.errors import nearest
from tuner.core.quantities import LONGEST_S, parse_duration

Percentile = Literal["p50", "p90", "p95", "p99"]
PERCENTILES: tuple[Percentile, ...] = get_args(Percentile)
_CHOICES = f"{', '.join(PERCENTILES[:-1])} or {PERCENTILES[-1]}"


def share_of(name: Percentile) -> float:
    """The share of requests below a percentile: 0.99 for `p99`."""
    return int(name.removeprefix("p")) / 100


@dataclass(frozen=True)
class Metric:
    """A quantity that an SLO may limit, in ms, at a percentile of the requests.

    `tuner.measure.points` measures it, and `tuner.stats.latencies` tests it.

    Attributes:
        name: Its name in options and files.
        words: Its name in messages; empty: the percentile alone names it.
    """

    name: str
    words: str


LATENCY = Metric("latency", "")
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (LATENCY,)}
"""The metrics that an SLO may limit, by name."""
# What a user may want to limit, and the option that limits it.
_ELSEWHERE = {"gpu_memory": "--max-gpu-memory", "memory": "--max-gpu-memory", "rate": "--rate"}


class Statistic(NamedTuple):
    """A percentile of a metric: `latency.p99`, or `p99` for short."""

    metric: str
    percentile: Percentile

    @property
    def key(self) -> str:
        """Its short form, by which it is stored: `p99` for latency, else `METRIC.p99`."""
        return self.percentile if self.metric == LATENCY.name else f"{self.metric}.{self.percentile}"

    @property
    def words(self) -> str:
        """Its name in messages: `p99`."""
        return " ".join(filter(None, (METRICS[self.metric].words, self.percentile)))

    @classmethod
    def parse(cls, name: Any) -> Statistic:
        """Read `p99`, or `latency.p99`.

        Raises:
            ValueError: the metric or the percentile is unknown; the message has the nearest name.
        """
        metric, dot, percentile = str(name).strip().rpartition(".")
        if not dot and percentile in METRICS:
            raise ValueError(f"{percentile} needs a percentile; write {percentile}.p99")
        if not dot and not percentile[1:].isdigit():
            metric = percentile
        if metric and metric not in METRICS:
            option = _ELSEWHERE.get(metric)
            raise ValueError(f"unknown metric {metric!r}" + (f"; use {option}" if option else nearest(metric, METRICS)))
        if percentile not in PERCENTILES:
            raise ValueError(f"{percentile!r} is not a supported percentile; write {_CHOICES}")
        return cls(metric or LATENCY.name, percentile)


STATISTIC_NAMES = (*PERCENTILES, *(f"{name}.{percentile}" for name in METRICS for percentile in PERCENTILES))
"""All names of statistics that an SLO may limit."""


class Limit(NamedTuple):
    """One limit of an SLO.

    Attributes:
        metric: The name of the metric.
        percentile: The percentile of the requests that must be within the limit.
        limit_ms: The limit, in ms.
    """

    metric: str
    percentile: Percentile
    limit_ms: float

    @property
    def statistic(self) -> Statistic:
        """What is limited."""
        return Statistic(self.metric, self.percentile)

    @property
    def key(self) -> str:
        """See `Statistic.key`."""
        return self.statistic.key

    def __str__(self) -> str:
        return f"{self.statistic.words} <= {self.limit_ms:g} ms"


class SLO(RootModel[dict[str, float]]):
    """Limits in ms, by `Statistic.key`; all must hold. Empty: no limit.

    Reads `{"p99": "25ms"}`, `{"latency.p99": "25ms"}`, `{"p99": 25.0}` (the stored form, in ms), and the command line's
    `["p99=25ms"]`.
    """

    model_config = ConfigDict(frozen=True)
    root: dict[str, float] = {}

    @field_validator("root", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return cls.parse(value).root
        if not isinstance(value, Mapping):
            raise ValueError("write an SLO as {p99: 25ms}")  # noqa: TRY004 (pydantic wants ValueError)
        return _by_key((name, limit) for name, limit in value.items())

    @classmethod
    def parse(cls, texts: list[str] | tuple[str, ...]) -> SLO:
        """Read the command line's form, `p99=25ms` each.

        Raises:
            ValueError: the text is wrong; the message is one line with the fix.
        """
        limits = []
        for text in texts:
            name, equals, limit = str(text).partition("=")
            if not equals:
                raise ValueError(f"{text!r} is not an SLO; write it as p99=25ms")
            limits.append((name, limit))
        return cls(_by_key(limits))

    @cached_property
    def limits(self) -> tuple[Limit, ...]:
        """The limits, in order of metric and percentile."""
        limits = [Limit(*Statistic.parse(key), limit_ms) for key, limit_ms in self.root.items()]
        return tuple(sorted(limits, key=lambda limit: (limit.metric != LATENCY.name, *limit)))

    @property
    def percentile(self) -> Percentile:
        """The latency percentile of the SLO: the highest with a limit, or p99 without limits."""
        return max((limit.percentile for limit in self.limits if limit.metric == LATENCY.name), default="p99")

    def limit_ms(self, percentile: Percentile) -> float | None:
        """The limit on a latency percentile, in ms; None: there is none."""
        return self.root.get(Statistic(LATENCY.name, percentile).key)

    def excess(self, values_ms: Mapping[str, float]) -> float:
        """The largest excess over a limit, as a share of the limit; <= 0: the SLO holds. -1 without limits.

        Args:
            values_ms: The measured value of each limited statistic, by its key (`p99`), in ms.
        """
        return max((values_ms[limit.key] / limit.limit_ms - 1 for limit in self.limits), default=-1.0)

    def holds(self, values_ms: Mapping[str, float]) -> bool:
        """Whether every limit holds; see `excess`."""
        return self.excess(values_ms) <= 0

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits)) or "none"


NO_LIMIT = SLO()


def _by_key(limits: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    by_key: dict[str, float] = {}
    for name, limit in limits:
        key = Statistic.parse(name).key
        if key in by_key:
            raise ValueError(f"{str(name).strip()} is given twice")
        by_key[key] = _limit_ms(limit)
    return by_key


def _limit_ms(limit: Any) -> float:
    if isinstance(limit, str):
        return parse_duration(limit, units=("ms",)) * 1e3
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= LONGEST_S * 1e3:
        raise ValueError(f"{limit!r} is not a latency limit; write it as 25ms")
    return float(limit)
