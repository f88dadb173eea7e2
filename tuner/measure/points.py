"""What a measurement says. Stored with the study, written to `front.json`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from tuner.core.loads import Load
from tuner.core.record import Interval, Record
from tuner.core.slo import SLO, Percentile
from tuner.measure.client_view import ClientView
from tuner.measure.doubts import Doubt
from tuner.measure.gpu_view import GpuUsage
from tuner.measure.machine_load import MachineLoad
from tuner.measure.machine_speed import MachineSpeed
from tuner.measure.responses import ResponseTimes
from tuner.measure.server_resources import ServerResources
from tuner.stats.histogram import Histogram
from tuner.stats.limit_test import LimitTest, Verdict, together


class ServerBreakdown(Record):
    """Where the server says that the time went, as means over the window (ModelStatistics, difference of two reads).

    Attributes:
        inferences: Inferences that the server counted.
        executions: Batches that it formed of them.
        queue_ms: Mean wait of a request before its batch was taken.
        compute_input_ms: Mean time to gather a request's inputs.
        compute_infer_ms: Mean time of a request in the model.
        compute_output_ms: Mean time to hand out a request's outputs.
        batches: Executions by the batch size that was formed, with their mean service time in ms:
            `{batch_size: (executions, mean_service_ms)}`.
        wall_s: Seconds between the two reads; None: nobody looked at a clock.
        requests: Requests that it counted as answered, those from the response cache included.
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
        load: What was offered.
        throughput: Inferences a second that succeeded.
        latency_ms: Of the requests that succeeded, for each of `PERCENTILES`; in an open loop since they were due.
        requests: Requests that succeeded within the window that counts.
        errors: Requests that failed within it.
        error: The most frequent error message, if any.
        window_s: Length of the window that counts, warm-up cut off.
        batch_size: Inferences in each request.
        received_bytes_per_s: Of answers that succeeded.
        histogram: Of the same latencies as `latency_ms`.
        client: What the load generator says of itself.
        limits: How the limits fared that it was measured for.
        kept_up: Whether the server answered as fast as requests were due; None in a closed loop.
        server: The server's own view, when it has one.
        responses: Of a model with any number of responses to a request.
        server_resources: What the server took of processors and memory; None where nobody says.
        gpu: What the GPUs in use had to do; None without any, or where nobody says.
        machine: What the processors of this machine had to do; None where nobody says.
        machine_speed: How fast this machine itself was meanwhile, and how steadily; the intervals allow for that.
        doubts: The gates that it has not passed, and why.
        discarded: Those about another measurement of the same load, which was thrown away; empty: there was none.
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
    doubts: tuple[Doubt, ...] = ()
    discarded: tuple[Doubt, ...] = ()

    @property
    def average_batch_size(self) -> float | None:
        """The mean batch that the server formed, or None when it does not say."""
        return self.server.average_batch_size if self.server else None

    def verdict(self, slo: SLO, among: int = 1) -> Verdict:
        """Whether it keeps every limit, as far as tests tell; open where it was not measured for one.

        Args:
            slo: The limits.
            among: Of how many points, each tried until one of them holds, this is one.
        """
        tested = {test.limit: test.verdict_among(among) for test in self.limits}
        return together(tested.get(limit, Verdict.OPEN) for limit in slo.limits)

    def holds(self, slo: SLO, slower: float = 1.0) -> bool:
        """Whether what was measured keeps every limit, were latency so many times as high.

        `verdict` says whether that is sure.
        """
        return slo.holds({name: slower * interval.value for name, interval in self.latency_ms.items()})

    @property
    def client_bound(self) -> bool:
        """Whether the load generator, not the server, was the limit."""
        return self.client.bound is not None
