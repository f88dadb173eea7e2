"""Triton's statistics over a window: the difference of two reads.

`inference_stats` counts the time of a batch once for each request in it, `batch_stats` once for each execution. So
means per request come from the first, service times from the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

from tuner.measure.points import ServerBreakdown

ReadStatistics = Callable[[], service_pb2.ModelStatistics]
"""Reads the server's statistics of the model version that is measured."""


@dataclass(frozen=True)
class Read:
    """The server's statistics, with the times of request and reply on the monotonic clock, in ns."""

    statistics: service_pb2.ModelStatistics
    asked_ns: int
    told_ns: int

    @classmethod
    def now(cls, ask: ReadStatistics) -> Read:
        """Read the statistics now."""
        asked_ns = time.monotonic_ns()
        return cls(ask(), asked_ns, time.monotonic_ns())


@dataclass(frozen=True)
class Reads:
    """The server's statistics at two moments of a load."""

    first: Read
    last: Read

    @property
    def breakdown(self) -> ServerBreakdown | None:
        """The breakdown between the two reads; see `breakdown`."""
        wall_s = (self.last.told_ns - self.first.told_ns) / 1e9
        return breakdown(self.first.statistics, self.last.statistics, wall_s=wall_s)

    @property
    def requests(self) -> int | None:
        """Successful requests between the two reads; None if the model was reloaded."""
        counts = [read.statistics.inference_stats.success.count for read in (self.first, self.last)]
        return counts[1] - counts[0] if counts[1] >= counts[0] else None


def breakdown(
    before: service_pb2.ModelStatistics, after: service_pb2.ModelStatistics, *, wall_s: float | None = None
) -> ServerBreakdown | None:
    """The times of requests in the server between two reads, `wall_s` seconds apart.

    None if no request was answered, or the model was reloaded in between.
    """
    inferences = after.inference_count - before.inference_count
    executions = after.execution_count - before.execution_count
    cache_hits = after.inference_stats.cache_hit.count - before.inference_stats.cache_hit.count
    if min(inferences, executions, cache_hits) < 0 or not inferences + cache_hits:
        return None
    return ServerBreakdown(
        inferences=inferences,
        executions=executions,
        queue_ms=_mean_ms(before.inference_stats.queue, after.inference_stats.queue),
        compute_input_ms=_mean_ms(before.inference_stats.compute_input, after.inference_stats.compute_input),
        compute_infer_ms=_mean_ms(before.inference_stats.compute_infer, after.inference_stats.compute_infer),
        compute_output_ms=_mean_ms(before.inference_stats.compute_output, after.inference_stats.compute_output),
        batches=_batches(before, after),
        wall_s=wall_s,
        requests=after.inference_stats.success.count - before.inference_stats.success.count,
        cache_hits=cache_hits,
    )


def _mean_ms(before: service_pb2.StatisticDuration, after: service_pb2.StatisticDuration) -> float:
    count = after.count - before.count
    return float((after.ns - before.ns) / count / 1e6) if count > 0 else 0.0


def _batches(before: service_pb2.ModelStatistics, after: service_pb2.ModelStatistics) -> dict[int, tuple[int, float]]:
    """Executions and mean service time (input, inference and output) in ms, by batch size."""
    earlier = {batch.batch_size: batch for batch in before.batch_stats}
    batches: dict[int, tuple[int, float]] = {}
    for now in sorted(after.batch_stats, key=lambda batch: int(batch.batch_size)):
        then = earlier.get(now.batch_size, service_pb2.InferBatchStatistics())
        executions = now.compute_infer.count - then.compute_infer.count
        if executions > 0:
            batches[now.batch_size] = (executions, (_service_ns(now) - _service_ns(then)) / executions / 1e6)
    return batches


def _service_ns(batch: service_pb2.InferBatchStatistics) -> int:
    return int(batch.compute_input.ns + batch.compute_infer.ns + batch.compute_output.ns)
