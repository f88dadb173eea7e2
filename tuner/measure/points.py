"""What a measurement says: numbers with their 95 % intervals. Stored with the study, written to `front.json`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from tuner.slo import Percentile


class Record(BaseModel):
    """A frozen type that goes to disk and comes back as it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Record):
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """Half of the interval's width over its value; infinite for a value of 0."""
        return (self.high - self.low) / 2 / self.value if self.value > 0 else float("inf")


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
    """

    inferences: int
    executions: int
    queue_ms: float
    compute_input_ms: float
    compute_infer_ms: float
    compute_output_ms: float
    batches: Mapping[int, tuple[int, float]]

    @property
    def compute_ms(self) -> float:
        """Mean time from when a request's batch was taken to when its outputs were handed out."""
        return self.compute_input_ms + self.compute_infer_ms + self.compute_output_ms

    @property
    def average_batch_size(self) -> float:
        """Inferences over executions; 0 when nothing was executed."""
        return self.inferences / self.executions if self.executions else 0.0


class OperatingPoint(Record):
    """One candidate under one load.

    Attributes:
        concurrency: Requests under way (closed loop).
        throughput: Inferences a second that succeeded.
        latency_ms: Of the requests that succeeded, for each of `PERCENTILES`.
        requests: Requests that succeeded within the window that counts.
        errors: Requests that failed within it.
        error: The most frequent error message, if any.
        window_s: Length of the window that counts, warm-up cut off.
        client_cpu: Share of one core that the load generator took.
        server: The server's own view, when it has one.
    """

    concurrency: int
    throughput: Interval
    latency_ms: Mapping[Percentile, Interval]
    requests: int = Field(ge=0)
    errors: int = Field(ge=0)
    error: str | None = None
    window_s: float
    client_cpu: float
    server: ServerBreakdown | None = None

    @property
    def average_batch_size(self) -> float | None:
        """The mean batch that the server formed, or None when it does not say."""
        return self.server.average_batch_size if self.server else None
