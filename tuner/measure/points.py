"""Results of measurements. Stored with the study, and written to `front.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from pydantic import AliasChoices, Field

from tuner.core.loads import Load
from tuner.core.objectives import Objective, inverse
from tuner.core.record import Interval, Record
from tuner.core.slo import LATENCY, PERCENTILES, SLO, Percentile, Statistic
from tuner.measure.client_view import ClientView, clients_together
from tuner.measure.gpu_view import GpuUsage, usage_together
from tuner.measure.machine_load import MachineLoad, loads_together
from tuner.measure.machine_speed import MachineSpeed, speeds_together
from tuner.measure.quality_warnings import QualityWarning, warnings_together
from tuner.measure.responses import ResponseTimes, responses_together
from tuner.measure.server_resources import ServerResources, resources_together
from tuner.stats.histogram import Histogram
from tuner.stats.launches import mean_of_launches
from tuner.stats.slo_verdict import SLOTest, Verdict, together


class ServerBreakdown(Record):
    """Where requests spent their time in the server, as means over the window (difference of two ModelStatistics).

    Attributes:
        inferences: Inferences that the server counted.
        executions: Executed batches.
        queue_ms: Mean time of a request in the queue.
        compute_input_ms: Mean time to prepare a request's inputs.
        compute_infer_ms: Mean time of a request in the model.
        compute_output_ms: Mean time to write a request's outputs.
        batches: Executions by batch size, with their mean service time in ms:
            `{batch_size: (executions, mean_service_ms)}`.
        wall_s: Seconds between the two reads; None: not known.
        requests: Successful requests, including those from the response cache.
        cache_hits: Requests that the response cache answered.
    """

    inferences: int
    executions: int
    queue_ms: float
    compute_input_ms: float
    compute_infer_ms: float
    compute_output_ms: float
    batches: Mapping[int, tuple[int, float]]
    wall_s: float | None = None
    requests: int = 0
    cache_hits: int = 0

    @property
    def average_batch_size(self) -> float:
        """Inferences over executions; 0 when nothing was executed."""
        return self.inferences / self.executions if self.executions else 0.0


class OperatingPoint(Record):
    """One candidate under one load.

    Attributes:
        load: The load that was offered.
        throughput: Successful inferences per second.
        latency_ms: Latency of successful requests in ms, by percentile (`PERCENTILES`); in an open loop from the due
            time.
        requests: Successful requests in the window.
        errors: Failed requests in the window.
        error: The most frequent error message, if any.
        window_s: Length of the window in seconds, without warm-up.
        batch_size: Inferences in each request.
        received_bytes_per_s: Bytes of successful answers per second.
        histogram: Histogram of the latencies.
        client: CPU usage and lateness of the load generator.
        limits: Tests of the SLO's limits.
        kept_up: Whether the server kept up with the offered rate; None in a closed loop.
        server: The server's own statistics, if available.
        responses: Response times of a decoupled model; None for others.
        server_resources: CPU and memory usage of the server; None: unknown.
        gpu: Usage of the GPUs; None: no GPU in use, or unknown.
        machine: Load of this machine's processors; None: unknown.
        machine_speed: Speed of this machine and its variation, which the intervals allow for; None: unknown.
        warnings: Quality warnings; `doubts` in studies of earlier versions, and in exports.
        discarded: Quality warnings of a discarded measurement at the same load; empty: there was none.
    """

    load: Load
    throughput: Interval
    latency_ms: Mapping[Percentile, Interval]
    requests: int = Field(ge=0)
    errors: int = Field(ge=0)
    error: str | None = None
    window_s: float
    batch_size: int = 1
    received_bytes_per_s: float = 0.0
    histogram: Histogram = Histogram()
    client: ClientView
    limits: tuple[SLOTest, ...] = ()
    kept_up: bool | None = None
    server: ServerBreakdown | None = None
    responses: ResponseTimes | None = None
    server_resources: ServerResources | None = None
    gpu: GpuUsage | None = None
    machine: MachineLoad | None = None
    machine_speed: MachineSpeed | None = None
    warnings: tuple[QualityWarning, ...] = Field((), validation_alias=AliasChoices("warnings", "doubts"))
    discarded: tuple[QualityWarning, ...] = ()

    @property
    def average_batch_size(self) -> float | None:
        """The mean batch size that the server formed; None: unknown."""
        return self.server.average_batch_size if self.server else None

    def verdict(self, slo: SLO, among: int = 1) -> Verdict:
        """Whether every limit holds, by sequential tests (99 % confidence); `OPEN` for a limit that was not tested.

        Args:
            slo: The limits.
            among: Number of points of which any may hold; each test is corrected for it (Bonferroni).
        """
        tested = {test.limit: test.verdict_among(among) for test in self.limits}
        return together(tested.get(limit, Verdict.OPEN) for limit in slo.limits)

    def holds(self, slo: SLO, slower: float = 1.0) -> bool:
        """Whether the measured percentiles, times `slower`, keep every limit.

        `verdict` tests it with confidence.
        """
        return slo.holds({name: slower * interval.value for name, interval in self.limitable_ms.items()})

    @property
    def is_answered(self) -> bool:
        """Whether all requests were answered, and, in an open loop, as fast as they were due."""
        return self.errors == 0 and self.kept_up is not False

    def value(self, objective: Objective) -> Interval | None:
        """The value of an objective, in its unit; None: unknown."""
        if objective.percentile is not None:
            return self.latency_ms[objective.percentile]
        if objective.metric == "throughput":
            return self.throughput
        divisor = None
        if self.gpu is not None:
            divisor = len(self.gpu.gpus) if objective.metric == "throughput_per_gpu" else self.gpu.power_w
        return self.throughput.times(1 / divisor) if divisor else None

    def merit(self, objective: Objective) -> Interval:
        """The value of an objective as a number of which more is better: the inverse of a latency, in 1/s.

        The ratio of two merits is a gain.

        Raises:
            ValueError: the value is unknown.
        """
        value = self.value(objective)
        if value is None:
            raise ValueError(f"unknown {objective.words}")
        return value if objective.maximizes else inverse(value)

    @property
    def limitable_ms(self) -> Mapping[str, Interval]:
        """All values that an SLO may limit, by `tuner.core.slo.Statistic.key`, in ms."""
        return {Statistic(LATENCY.name, percentile).key: value for percentile, value in self.latency_ms.items()}

    @property
    def client_bound(self) -> bool:
        """Whether the load generator, not the server, was the limit."""
        return self.client.bound is not None


def rounds_together(rounds: Sequence[OperatingPoint]) -> OperatingPoint:
    """Pool several measurements of one config under one load; the pooled point has no tests of limits."""
    return OperatingPoint(
        load=rounds[0].load,
        throughput=mean_of_launches([point.throughput for point in rounds]),
        latency_ms={p: mean_of_launches([point.latency_ms[p] for point in rounds]) for p in PERCENTILES},
        requests=sum(point.requests for point in rounds),
        errors=sum(point.errors for point in rounds),
        error=next((point.error for point in rounds if point.error), None),
        window_s=sum(point.window_s for point in rounds),
        batch_size=rounds[0].batch_size,
        received_bytes_per_s=fmean(point.received_bytes_per_s for point in rounds),
        histogram=Histogram.together(point.histogram for point in rounds),
        client=clients_together([point.client for point in rounds]),
        kept_up=None if rounds[0].kept_up is None else all(point.kept_up for point in rounds),
        server=servers_together(point.server for point in rounds),
        responses=responses_together(point.responses for point in rounds),
        server_resources=resources_together(point.server_resources for point in rounds),
        gpu=usage_together(point.gpu for point in rounds),
        machine=loads_together(point.machine for point in rounds),
        machine_speed=speeds_together(point.machine_speed for point in rounds),
        warnings=warnings_together([point.warnings for point in rounds]),
        discarded=warnings_together([point.discarded for point in rounds]),
    )


def limits_together(rounds: Sequence[OperatingPoint]) -> tuple[SLOTest, ...]:
    """The pooled tests of several launches, which tested the same limits."""
    return tuple(SLOTest.pooled(tests) for tests in zip(*(point.limits for point in rounds), strict=True))


def servers_together(rounds: Iterable[ServerBreakdown | None]) -> ServerBreakdown | None:
    """Pool several measurements at one load: counts add up, means are weighted by them."""
    servers = [server for server in rounds if server]
    if not servers:
        return None
    inferences = sum(server.inferences for server in servers)

    def mean(pick: Callable[[ServerBreakdown], float]) -> float:
        # Without inferences, where the response cache answered all requests, the mean is 0.
        return sum(pick(server) * server.inferences for server in servers) / max(1, inferences)

    batches: dict[int, tuple[int, float]] = {}
    for size, (executions, service_ms) in (item for server in servers for item in server.batches.items()):
        before, before_ms = batches.get(size, (0, 0.0))
        total = before + executions
        batches[size] = (total, (before * before_ms + executions * service_ms) / total)
    return ServerBreakdown(
        inferences=inferences,
        executions=sum(server.executions for server in servers),
        queue_ms=mean(lambda server: server.queue_ms),
        compute_input_ms=mean(lambda server: server.compute_input_ms),
        compute_infer_ms=mean(lambda server: server.compute_infer_ms),
        compute_output_ms=mean(lambda server: server.compute_output_ms),
        batches=dict(sorted(batches.items())),
        wall_s=_sum(server.wall_s for server in servers),
        requests=sum(server.requests for server in servers),
        cache_hits=sum(server.cache_hits for server in servers),
    )


def _sum(seconds: Iterable[float | None]) -> float | None:
    """The sum; None when one of the values is unknown."""
    values = list(seconds)
    return None if None in values else sum(value for value in values if value is not None)
