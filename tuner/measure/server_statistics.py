"""What Triton says of itself over a window: the difference of two reads of its statistics.

`inference_stats` counts a batch's time once for each request in it; `batch_stats` once for each execution. So means
by request come of the first, service times of the second, and the two are never mixed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

from tuner.measure.points import ServerBreakdown

ReadStatistics = Callable[[], service_pb2.ModelStatistics]
"""Asks the server for the statistics of the one version of the model that is measured."""


@dataclass(frozen=True)
class Read:
    """The server's statistics, and when they were asked for and there, by the machine's monotonic clock."""

    statistics: service_pb2.ModelStatistics
    asked_ns: int
    told_ns: int

    @classmethod
    def now(cls, ask: ReadStatistics) -> Read:
        """Ask the server."""
        asked_ns = time.monotonic_ns()
        return cls(ask(), asked_ns, time.monotonic_ns())


@dataclass(frozen=True)
class Reads:
    """What the server said at two moments of a load."""

    first: Read
    last: Read

    @property
    def breakdown(self) -> ServerBreakdown | None:
        """Where the time went between them; see `breakdown`."""
        wall_s = (self.last.told_ns - self.first.told_ns) / 1e9
        return breakdown(self.first.statistics, self.last.statistics, wall_s=wall_s)

    @property
    def requests(self) -> int | None:
        """How many requests it has answered between them; None when the model was loaded anew."""
        counts = [read.statistics.inference_stats.success.count for read in (self.first, self.last)]
        return counts[1] - counts[0] if counts[1] >= counts[0] else None


def breakdown(
    before: service_pb2.ModelStatistics, after: service_pb2.ModelStatistics, *, wall_s: float | None = None
) -> ServerBreakdown | None:
    """Where the time went between two reads, `wall_s` apart.

    None when nothing was answered, or the model was loaded anew between.
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
    """Executions and mean service time in ms by batch size; service is input, inference and output together."""
    earlier = {batch.batch_size: batch for batch in before.batch_stats}
    found: dict[int, tuple[int, float]] = {}
    for now in sorted(after.batch_stats, key=lambda batch: int(batch.batch_size)):
        then = earlier.get(now.batch_size, service_pb2.InferBatchStatistics())
        executions = now.compute_infer.count - then.compute_infer.count
        if executions > 0:
            found[now.batch_size] = (executions, (_service_ns(now) - _service_ns(then)) / executions / 1e6)
    return found


def _service_ns(batch: service_pb2.InferBatchStatistics) -> int:
    return int(batch.compute_input.ns + batch.compute_infer.ns + batch.compute_output.ns)
