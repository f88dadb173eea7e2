"""A model's statistics as core counts them: requests in `inference_stats`, executions in `batch_stats`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tritonclient.grpc import service_pb2 as pb

from tuner.testing.fake.messages import InferRequest

# Share of an execution spent on copying inputs and outputs.
_COPYING = 0.02
_CACHE_NS = 1_000


@dataclass
class _Sum:
    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns * count

    def proto(self) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=self.count, ns=self.ns)


@dataclass
class _Batches:
    input: _Sum = field(default_factory=_Sum)
    infer: _Sum = field(default_factory=_Sum)
    output: _Sum = field(default_factory=_Sum)


@dataclass
class Statistics:
    """Statistics of one version of a model."""

    last_ms: int = 0
    inferences: int = 0
    executions: int = 0
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    queue: _Sum = field(default_factory=_Sum)
    parts: _Batches = field(default_factory=_Batches)
    by_size: dict[int, _Batches] = field(default_factory=dict)
    hits: _Sum = field(default_factory=_Sum)
    misses: _Sum = field(default_factory=_Sum)

    def executed(self, batch: Sequence[InferRequest], began: float, ended: float) -> None:
        """Count an execution and its requests; error responses count too."""
        took = round((ended - began) * 1e9)
        copying = round(took * _COPYING)
        size = 0
        self.last_ms = round(time.time() * 1e3)
        for request in batch:
            if not request.ready:
                continue
            size += request.size
            waited = round((began - request.arrived) * 1e9)
            self.queue.add(waited)
            self.success.add(waited + took)
            _add(self.parts, took, copying)
        if size:
            self.executions += 1
            self.inferences += size
            _add(self.by_size.setdefault(size, _Batches()), took, copying)

    def failed(self, arrived: float, now: float) -> None:
        """Count a request that was refused before its execution."""
        self.fail.add(round((now - arrived) * 1e9))

    def found(self) -> None:
        """Count a cache hit."""
        self.success.add(_CACHE_NS)
        self.hits.add(_CACHE_NS)

    def missed(self) -> None:
        """Count a cache miss, after which the response was stored."""
        self.misses.add(_CACHE_NS)

    def proto(self, model: str, version: int) -> pb.ModelStatistics:
        """The statistics as a protobuf message."""
        return pb.ModelStatistics(
            name=model,
            version=str(version),
            last_inference=self.last_ms,
            inference_count=self.inferences,
            execution_count=self.executions,
            inference_stats=pb.InferStatistics(
                success=self.success.proto(),
                fail=self.fail.proto(),
                queue=self.queue.proto(),
                compute_input=self.parts.input.proto(),
                compute_infer=self.parts.infer.proto(),
                compute_output=self.parts.output.proto(),
                cache_hit=self.hits.proto(),
                cache_miss=self.misses.proto(),
            ),
            batch_stats=[
                pb.InferBatchStatistics(
                    batch_size=size,
                    compute_input=parts.input.proto(),
                    compute_infer=parts.infer.proto(),
                    compute_output=parts.output.proto(),
                )
                for size, parts in sorted(self.by_size.items())
            ],
        )


def _add(parts: _Batches, took: int, copying: int) -> None:
    parts.input.add(copying)
    parts.infer.add(took - 2 * copying)
    parts.output.add(copying)
