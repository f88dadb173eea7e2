"""Results of measurements. Stored with the study, and written to `front.json`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from tuner.core.loads import Load
from tuner.core.record import Interval, Record
from tuner.core.slo import SLO, Percentile
from tuner.measure.client_view import ClientView
from tuner.measure.gpu_view import GpuUsage
from tuner.measure.machine_load import MachineLoad
from tuner.measure.machine_speed import MachineSpeed
from tuner.measure.quality_warnings import QualityWarning
from tuner.measure.responses import ResponseTimes
from tuner.measure.server_resources import ServerResources
from tuner.stats.histogram import Histogram
from tuner.stats.limit_test import LimitTest, Verdict, together


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
        latency_ms: Latency of successful requests in ms, for each of `PERCENTILES`; in an open loop from the due time.
        requests: Successful requests in the window.
        errors: Failed requests in the window.
        error: The most frequent error message, if any.
        window_s: Length of the window in seconds, without warm-up.
        batch_size: Inferences in each request.
        received_bytes_per_s: Bytes of successful answers per second.
        histogram: Histogram of the latencies.
        client: How busy and late the load generator was.
        limits: Tests of the SLO's limits.
        kept_up: Whether the server kept up with the offered rate; None in a closed loop.
        server: The server's own statistics, if available.
        responses: Response times of a decoupled model; None for others.
        server_resources: CPU and memory usage of the server; None: unknown.
        gpu: Usage of the GPUs; None: no GPU in use, or unknown.
        machine: Load of this machine's processors; None: unknown.
        machine_speed: Speed of this machine and its variation, which the intervals allow for; None: unknown.
        doubts: Quality warnings.
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
    limits: tuple[LimitTest, ...] = ()
    kept_up: bool | None = None
    server: ServerBreakdown | None = None
    responses: ResponseTimes | None = None
    server_resources: ServerResources | None = None
    gpu: GpuUsage | None = None
    machine: MachineLoad | None = None
    machine_speed: MachineSpeed | None = None
    doubts: tuple[QualityWarning, ...] = ()
    discarded: tuple[QualityWarning, ...] = ()

    @property
    def average_batch_size(self) -> float | None:
        """The mean batch size that the server formed; None: unknown."""
        return self.server.average_batch_size if self.server else None

    def verdict(self, slo: SLO, among: int = 1) -> Verdict:
        """Whether every limit holds, by sequential tests (99 % confidence); `OPEN` for a limit that was not tested.

        Args:
            slo: The limits.
            among: Number of points that are tried until one holds; each test is corrected for it (Bonferroni).
        """
        tested = {test.limit: test.verdict_among(among) for test in self.limits}
        return together(tested.get(limit, Verdict.OPEN) for limit in slo.limits)

    def holds(self, slo: SLO, slower: float = 1.0) -> bool:
        """Whether the measured percentiles, times `slower`, keep every limit.

        `verdict` tests it with confidence.
        """
        return slo.holds({name: slower * interval.value for name, interval in self.latency_ms.items()})

    @property
    def client_bound(self) -> bool:
        """Whether the load generator, not the server, was the limit."""
        return self.client.bound is not None
