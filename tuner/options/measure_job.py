"""A measurement job: one model, and the loads to measure it under."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from typing_extensions import Self

from tuner.core.loads import Concurrency, Distribution, Load, Ramp, RequestRate
from tuner.core.precision import Precision
from tuner.core.slo import SLO
from tuner.options.groups import (
    HIGHEST_RATE,
    Limits,
    LoadOptions,
    Name,
    Precise,
    Rate,
    RemoteOptions,
    Repository,
    Seconds,
    ServerOptions,
)
from tuner.options.recordings import read_intervals, read_timestamps

_MOST_LEVELS = 1_000
_MOST_CONCURRENCY = 65_536
_CONCURRENCY = (
    f"is not a concurrency; write whole numbers from 1 to {_MOST_CONCURRENCY:,}, as 1,8,64, or START:END:STEP"
)
_RATE = f"is not a rate; write requests/s > 0 and <= {HIGHEST_RATE:,.0f}, as 100,200, or START:END:STEP, or max"
_RAMP = re.compile(r"([\d.]+):([\d.]+):(.+)")


def _levels(value: Any, otherwise: str) -> Any:
    """The numbers of `1,8,64`, in which each may also be `START:END[:STEP]`; `otherwise` ends the error message."""
    if not isinstance(value, str):
        return value
    levels: list[float] = []
    for part in value.split(","):
        try:
            numbers = [float(text) for text in part.split(":")]
        except ValueError:
            numbers = [math.nan]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{value!r} {otherwise}")
        levels += _range(numbers, part.strip())
    return tuple(levels)


def _range(numbers: Sequence[float], part: str) -> list[float]:
    start, *rest = numbers
    if not rest:
        return [start]
    end, step = rest[0], rest[1] if len(rest) == 2 else 1.0
    if len(rest) > 2 or not step > 0 or end < start:
        raise ValueError(f"{part!r} is not a range; write START:END:STEP with START <= END and STEP > 0")
    steps = (end - start) / step  # may be infinite
    if steps >= _MOST_LEVELS:
        raise ValueError(f"{part!r} must have <= {_MOST_LEVELS:,} levels")
    count = int(steps + 1e-9) + 1
    return [start + place * step for place in range(count)]


def _concurrencies(value: Any) -> Any:
    levels = _levels(value, _CONCURRENCY)
    if isinstance(value, str) and not all(1 <= level <= _MOST_CONCURRENCY and level % 1 == 0 for level in levels):
        raise ValueError(f"{value!r} {_CONCURRENCY}")
    return levels


def _rates(value: Any) -> Any:
    if value == "max":
        return value
    levels = _levels(value, _RATE)
    if isinstance(value, str) and not all(0 < level <= HIGHEST_RATE for level in levels):
        raise ValueError(f"{value!r} {_RATE}")
    return levels


def _version(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"([1-9][0-9]*)?", value):
        raise ValueError(f"{value!r} is not a version; write a whole number >= 1")
    return value


def _ramp(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = _RAMP.fullmatch(value.strip())
    try:
        rates = (float(parts[1]), float(parts[2])) if parts else (0.0, 0.0)
    except ValueError:
        rates = (0.0, 0.0)
    if parts is None or min(rates) < 0 or max(rates) <= 0:
        raise ValueError(f"{value!r} is not a ramp; write FROM:TO:TIME (requests/s, duration), such as 100:1000:60s")
    return (*rates, parts[3])


class MeasureJob(LoadOptions, ServerOptions, RemoteOptions):
    """A model to measure, and its loads, measured one after the other in the order of the fields."""

    repository: Repository | None = Field(None, description="Model repository to serve, if there is no URL.")
    model: Name | None = Field(None, description="Model to measure. Default: the only one.")
    model_version: Annotated[str, BeforeValidator(_version)] = Field(
        "", description="Version of the model. Default: the server's choice."
    )
    concurrency: Annotated[
        tuple[Annotated[int, Field(ge=1, le=_MOST_CONCURRENCY)], ...] | None,
        Field(min_length=1),
        BeforeValidator(_concurrencies),
    ] = Field(None, description="Concurrent requests: 1,8,64 or START:END:STEP. Default: 1, if no other load is given.")
    rate: Annotated[tuple[Rate, ...] | Literal["max"] | None, BeforeValidator(_rates)] = Field(
        None,
        description="Request rate (requests/s): 100,200 or START:END:STEP; max: the highest that the server sustains.",
    )
    ramp: Annotated[tuple[float, float, Seconds] | None, BeforeValidator(_ramp)] = Field(
        None, description="Rising request rate (requests/s), such as 100:1000:60s."
    )
    intervals: Path | None = Field(
        None, description="File to replay: microseconds between requests, one per line; repeats at its end."
    )
    timestamps: Path | None = Field(
        None, description="File to replay: send times of requests in seconds, one per line; sent once."
    )
    arrivals: Distribution = Field("poisson", description="Arrivals at a request rate: poisson or constant.")
    slo: Limits = Field(SLO(), description="Latency limit for the rate max: p50, p90, p95 or p99, and a time.")
    precision: Precise = Field(
        Precision(), description="Half widths of the 95 % intervals of throughput and of the SLO's latency percentile."
    )
    time: Seconds | None = Field(
        None, description="Time for each load. Default: until the precision is reached, 10s at most."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.repository is None) == (self.url is None):
            raise ValueError("measure needs either MODEL_REPO or the --url of a running Triton")
        given = self.model_fields_set
        if self.url is not None and "launch_timeout" in given:
            raise ValueError("--launch-timeout cannot be used with --url: that server runs already")
        if self.slo.root and self.rate != "max":
            raise ValueError("--slo needs --rate max")
        if "arrivals" in given and not (self.rate or self.ramp):
            raise ValueError("--arrivals needs --rate or --ramp")
        return self

    @property
    def loads(self) -> tuple[Load, ...]:
        """The loads to measure, without `rate="max"`; concurrency 1 by default.

        Raises:
            InputError: a recording cannot be read.
        """
        loads: list[Load] = [Concurrency(requests) for requests in self.concurrency or ()]
        if self.rate and self.rate != "max":
            loads += [RequestRate(per_s, self.arrivals) for per_s in self.rate]
        if self.ramp:
            loads.append(Ramp(*self.ramp, self.arrivals))
        if self.intervals:
            loads.append(read_intervals(self.intervals))
        if self.timestamps:
            loads.append(read_timestamps(self.timestamps))
        return tuple(loads) if loads or self.rate == "max" else (Concurrency(1),)
