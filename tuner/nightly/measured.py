"""A night's measurement of one config and its conditions, as the history stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from pydantic import Field

from tuner.config.tokens import tokens
from tuner.core.loads import Concurrency, RequestRate, SteadyLoad
from tuner.core.record import Interval, Record
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.recommend.verification import Verification


class Measured(Record):
    """The measurement of one config under one load, over several launches.

    Attributes:
        concurrency: The load: requests in flight; None: it is a rate.
        throughput: Throughput, in inferences/s.
        p99_ms: p99 latency, in ms.
        percentile: The SLO's latency percentile, the highest one with a limit.
        latency_ms: Latency by percentile, in ms; empty: stored by an older version with p99 alone.
        launches: Number of launches.
        turns_per_us: Speed of a core of the machine during the launches (see `MachineSpeed`); None: unknown.
        cpu_cores: CPU cores that the server used (CPU seconds per second); None: unknown.
        request_rate: The load: Poisson arrivals, in requests/s; None: it is a concurrency.
        warnings: Quality warnings, such as `load from elsewhere`; `doubts` in reports.
    """

    concurrency: int | None = None
    throughput: Interval
    p99_ms: Interval
    percentile: Percentile = "p99"
    latency_ms: Mapping[Percentile, Interval] = {}
    launches: int
    turns_per_us: float | None = None
    cpu_cores: float | None = None
    request_rate: float | None = None
    warnings: tuple[str, ...] = Field((), serialization_alias="doubts")

    @property
    def load(self) -> SteadyLoad:
        """The load."""
        return Concurrency(self.concurrency or 0) if self.request_rate is None else RequestRate(self.request_rate)

    @property
    def is_busy(self) -> bool:
        """Whether other processes loaded the machine during the launches."""
        return QualityCheck.MACHINE_LOAD.words in self.warnings

    def latency_at(self, percentile: Percentile) -> Interval | None:
        """Latency at a percentile, in ms; None: not stored."""
        return self.latency_ms.get(percentile, self.p99_ms if percentile == "p99" else None)

    @property
    def latency(self) -> Interval:
        """Latency at the SLO's percentile, in ms."""
        return self.latency_at(self.percentile) or self.p99_ms

    @classmethod
    def of(cls, rounds: Sequence[OperatingPoint], percentile: Percentile) -> Measured | None:
        """Pool several launches under one load; None without launches."""
        if not rounds:
            return None
        point = Verification(trial=0, load=rounds[0].load, rounds=tuple(rounds)).point
        return cls.of_point(point, percentile, launches=len(rounds)) if point else None

    @classmethod
    def of_point(cls, point: OperatingPoint, percentile: Percentile, *, launches: int) -> Measured | None:
        """The measurement from a point that pools `launches` launches; None if its load changes with time."""
        if not isinstance(point.load, SteadyLoad):
            return None
        return cls(
            concurrency=point.load.requests if isinstance(point.load, Concurrency) else None,
            request_rate=point.load.per_s if isinstance(point.load, RequestRate) else None,
            throughput=point.throughput,
            p99_ms=point.latency_ms["p99"],
            percentile=percentile,
            latency_ms=point.latency_ms,
            launches=launches,
            turns_per_us=point.machine_speed.turns_per_us if point.machine_speed else None,
            cpu_cores=point.server_resources.cpu_cores if point.server_resources else None,
            warnings=tuple(warning.check.words for warning in point.warnings),
        )


class Conditions(Record):
    """The conditions that must be equal for two nights to be compared.

    The model's other files are not included, since the comparison must find code that got slower.

    Attributes:
        repository: Path of the model repository.
        model: Name of the model.
        config: Fingerprint of the config.pbtxt; see `config_fingerprint`.
        hardware: Processor cores, GPUs and driver.
        server: Version of Triton, and the digest of its image if it has one.
        requests: Description of the requests, as JSON.
    """

    repository: str
    model: str
    config: str
    hardware: str
    server: str
    requests: str


def config_fingerprint(text: str) -> str:
    """SHA-256 (hex) of the tokens of a config, without comments and white space.

    Raises:
        ConfigError: the text is not a config.
    """
    words = "\0".join(token.text for token in tokens(text, "config.pbtxt"))
    return hashlib.sha256(words.encode()).hexdigest()
