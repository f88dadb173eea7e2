"""What a night measured of one config, and under which conditions, as the history keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from tuner.config.tokens import tokens
from tuner.core.loads import Concurrency
from tuner.core.record import Interval, Record
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck
from tuner.recommend.verification import Verification


class Measured(Record):
    """One config under one load, over some launches.

    Attributes:
        concurrency: The load.
        throughput: Inferences/s.
        p99_ms: Latency.
        percentile: The one that counts: the highest that the SLO limits.
        latency_ms: Of all percentiles; empty: an older version of tritontune stored p99 alone.
        launches: Of how many servers.
        turns_per_us: How fast a core of the machine was meanwhile (see `MachineSpeed`); None: nobody says.
        cpu_cores: CPU seconds a second that the server took; None: nobody says.
        doubts: What speaks against taking it as it is, in words, such as `load from elsewhere`.
    """

    concurrency: int
    throughput: Interval
    p99_ms: Interval
    percentile: Percentile = "p99"
    latency_ms: Mapping[Percentile, Interval] = {}
    launches: int
    turns_per_us: float | None = None
    cpu_cores: float | None = None
    doubts: tuple[str, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether others were at work on the machine meanwhile."""
        return QualityCheck.MACHINE_LOAD.words in self.doubts

    def latency_at(self, percentile: Percentile) -> Interval | None:
        """Latency in ms; None: it was not stored."""
        return self.latency_ms.get(percentile, self.p99_ms if percentile == "p99" else None)

    @property
    def latency(self) -> Interval:
        """Latency in ms at the percentile that counts."""
        return self.latency_at(self.percentile) or self.p99_ms

    @classmethod
    def of(cls, rounds: Sequence[OperatingPoint], percentile: Percentile) -> Measured | None:
        """Several launches under the same load as one; None without any, or under a load that is no concurrency."""
        if not rounds:
            return None
        point = Verification(trial=0, load=rounds[0].load, rounds=tuple(rounds)).point
        return cls.of_point(point, percentile, launches=len(rounds)) if point else None

    @classmethod
    def of_point(cls, point: OperatingPoint, percentile: Percentile, *, launches: int) -> Measured | None:
        """A point that stands for so many launches."""
        if not isinstance(point.load, Concurrency):
            return None
        return cls(
            concurrency=point.load.requests,
            throughput=point.throughput,
            p99_ms=point.latency_ms["p99"],
            percentile=percentile,
            latency_ms=point.latency_ms,
            launches=launches,
            turns_per_us=point.machine_speed.turns_per_us if point.machine_speed else None,
            cpu_cores=point.server_resources.cpu_cores if point.server_resources else None,
            doubts=tuple(doubt.gate.words for doubt in point.doubts),
        )


class Conditions(Record):
    """What must be the same for two nights to be compared.

    The model's own files are not among it: a model whose code got slower is what a comparison is to find.

    Attributes:
        repository: Where it is.
        config: Fingerprint of the config.pbtxt; see `config_fingerprint`.
        hardware: Processor cores, GPUs and driver.
        server: Which Triton, with the digest of its image where it has one.
        requests: What they are made of, as JSON.
    """

    repository: str
    model: str
    config: str
    hardware: str
    server: str
    requests: str


def config_fingerprint(text: str) -> str:
    """A SHA-256 in hex of what a config says; comments and white space do not count.

    Raises:
        ConfigError: it is no config.
    """
    words = "\0".join(token.text for token in tokens(text, "config.pbtxt"))
    return hashlib.sha256(words.encode()).hexdigest()
