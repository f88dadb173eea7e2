"""CPU and memory usage of the server under one load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from tuner.core.record import Record
from tuner.measure.sampling import Sample
from tuner.servers.usage import ServerUsage


class ServerResources(Record):
    """CPU and memory usage of the server's processes over the window of an operating point.

    Attributes:
        cpu_cores: CPU seconds per second; 1 is one busy core.
        memory_bytes: Peak resident memory.
    """

    cpu_cores: float
    memory_bytes: int


def resources(samples: Sequence[Sample[ServerUsage]]) -> ServerResources | None:
    """The usage over a window; None with fewer than two samples."""
    if len(samples) < 2:
        return None
    first, last = samples[0], samples[-1]
    seconds = (last.at_ns - first.at_ns) / 1e9
    return ServerResources(
        # The CPU time of a process that ended is lost.
        cpu_cores=max(0.0, last.answer.cpu_s - first.answer.cpu_s) / seconds,
        memory_bytes=max(sample.answer.memory_bytes for sample in samples),
    )


def resources_together(rounds: Iterable[ServerResources | None]) -> ServerResources | None:
    """Pool several measurements at one load: mean CPU, peak memory."""
    usages = [usage for usage in rounds if usage]
    if not usages:
        return None
    return ServerResources(
        cpu_cores=fmean(usage.cpu_cores for usage in usages), memory_bytes=max(usage.memory_bytes for usage in usages)
    )
