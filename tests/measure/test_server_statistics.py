from __future__ import annotations

import time

import pytest
from tritonclient.grpc import service_pb2

from tuner.measure.points import ServerBreakdown
from tuner.measure.server_statistics import Read, Reads, breakdown

MS = 1_000_000


def duration(count: int, ms: float) -> service_pb2.StatisticDuration:
    return service_pb2.StatisticDuration(count=count, ns=int(ms * MS))


def batch(size: int, executions: int, input_ms: float, infer_ms: float, output_ms: float) -> object:
    return service_pb2.InferBatchStatistics(
        batch_size=size,
        compute_input=duration(executions, input_ms),
        compute_infer=duration(executions, infer_ms),
        compute_output=duration(executions, output_ms),
    )


def statistics(inferences: int, executions: int, *, scale: float, batches: list[object]) -> service_pb2.ModelStatistics:
    """Each inference has waited 4 ms, and taken 1, 10 and 2 ms, times `scale`."""
    times = {"queue": 4, "compute_input": 1, "compute_infer": 10, "compute_output": 2}
    return service_pb2.ModelStatistics(
        name="m",
        version="1",
        inference_count=inferences,
        execution_count=executions,
        inference_stats=service_pb2.InferStatistics(
            success=duration(inferences, 17 * inferences * scale),
            **{name: duration(inferences, ms * inferences * scale) for name, ms in times.items()},
        ),
        batch_stats=batches,
    )


# 100 cold inferences one by one; then 20 alone at 6 ms, 40 in fours at 8 ms.
BEFORE = statistics(100, 100, scale=3, batches=[batch(1, 100, 100, 3_000, 200)])
AFTER = service_pb2.ModelStatistics()
AFTER.CopyFrom(
    statistics(160, 130, scale=0, batches=[batch(4, 10, 10, 60, 10), batch(1, 120, 110, 3_100, 210)]),
)
for name, ms in (("queue", 4.5), ("compute_input", 0.5), ("compute_infer", 7.0), ("compute_output", 0.25)):
    earlier = getattr(BEFORE.inference_stats, name).ns
    getattr(AFTER.inference_stats, name).ns = earlier + int(60 * ms * MS)


def rounded(found: ServerBreakdown) -> dict[int, tuple[int, float]]:
    return {size: (executions, round(service_ms, 6)) for size, (executions, service_ms) in found.batches.items()}


def test_means_by_request_come_of_the_inference_statistics() -> None:
    found = breakdown(BEFORE, AFTER)
    assert found is not None
    assert (found.inferences, found.executions) == (60, 30)
    assert found.average_batch_size == 2
    times_ms = (found.queue_ms, found.compute_input_ms, found.compute_infer_ms, found.compute_output_ms)
    assert times_ms == pytest.approx((4.5, 0.5, 7.0, 0.25))


def test_service_times_come_of_the_batch_statistics_one_an_execution() -> None:
    found = breakdown(BEFORE, AFTER)
    assert found is not None
    assert list(found.batches) == [1, 4]
    assert rounded(found) == {1: (20, 6.0), 4: (10, 8.0)}
    assert sum(size * executions for size, (executions, _) in found.batches.items()) == found.inferences


def test_batch_sizes_that_were_not_formed_since_are_left_out() -> None:
    later = service_pb2.ModelStatistics()
    later.CopyFrom(AFTER)
    later.inference_count += 4
    later.execution_count += 1
    later.batch_stats[0].CopyFrom(batch(4, 11, 11, 70, 11))
    found = breakdown(AFTER, later)
    assert found is not None
    assert rounded(found) == {4: (1, 12.0)}


def test_the_time_between_the_reads_goes_with_them() -> None:
    found = breakdown(BEFORE, AFTER, wall_s=0.25)
    assert found is not None
    assert found.wall_s == 0.25


def test_requests_and_cache_hits_are_counted() -> None:
    cached = service_pb2.ModelStatistics()
    cached.CopyFrom(AFTER)
    cached.inference_stats.success.count += 40
    cached.inference_stats.cache_hit.count += 40
    found = breakdown(BEFORE, cached)
    assert found is not None
    assert (found.inferences, found.requests, found.cache_hits) == (60, 100, 40)
    # All of them may come from the cache.
    found = breakdown(AFTER, cached)
    assert found is not None
    assert (found.inferences, found.requests, found.cache_hits, found.average_batch_size) == (0, 40, 40, 0)


def test_two_reads_say_when_they_were_and_what_was_answered_between() -> None:
    began_ns = time.monotonic_ns()
    reads = Reads(Read.now(lambda: BEFORE), Read.now(lambda: AFTER))
    times_ns = [began_ns, reads.first.asked_ns, reads.first.told_ns, reads.last.asked_ns, reads.last.told_ns]
    assert times_ns == sorted(times_ns)
    wall_s = (reads.last.told_ns - reads.first.told_ns) / 1e9
    assert (reads.breakdown, reads.requests) == (breakdown(BEFORE, AFTER, wall_s=wall_s), 60)
    assert Reads(reads.last, reads.first).requests is None


def test_no_inference_is_no_breakdown() -> None:
    assert breakdown(AFTER, AFTER) is None


def test_a_model_that_was_loaded_anew_has_no_breakdown() -> None:
    assert breakdown(AFTER, BEFORE) is None


def test_times_that_the_server_does_not_count_are_zero() -> None:
    """An ensemble counts no queue of its own, and no batches."""
    found = breakdown(service_pb2.ModelStatistics(), service_pb2.ModelStatistics(inference_count=5, execution_count=5))
    assert found is not None
    assert (found.queue_ms, found.compute_infer_ms, found.batches) == (0, 0, {})
