"""Operating points, trials and spaces for tests that need no server."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from tuner.config.config import ModelConfig
from tuner.core.errors import Cause
from tuner.core.loads import Concurrency, Load
from tuner.core.machine import Machine
from tuner.core.nvml import Gpu
from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES
from tuner.measure.client_view import ClientView
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.quality_checks import warnings_in
from tuner.measure.trial import TrialResult
from tuner.measure.work import Failure
from tuner.space.space import SearchSpace
from tuner.space.spec import LadderValue, SpaceSpec, load_space, parse_space
from tuner.stats.histogram import Histogram
from tuner.study.study import Identity

MLP = """\
backend: "python"
max_batch_size: 32
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


SMALL_SPACE = """\
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [8, 64]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2]}
"""


def interval(value: float, share: float = 0.02) -> Interval:
    """A value, give or take a share of it."""
    return Interval(value=value, low=value * (1 - share), high=value * (1 + share))


def point(
    load: int | Load = 1,
    throughput: float = 100.0,
    p99: float = 10.0,
    *,
    errors: int = 0,
    share: float = 0.02,
    kept_up: bool | None = None,
) -> OperatingPoint:
    """An operating point whose other percentiles follow from p99; a number as load is a concurrency."""
    factors = dict(zip(PERCENTILES, (0.5, 0.8, 0.9, 1.0), strict=True))
    made = OperatingPoint(
        load=Concurrency(load) if isinstance(load, int) else load,
        throughput=interval(throughput, share),
        latency_ms={percentile: interval(p99 * factor, 0.1) for percentile, factor in factors.items()},
        requests=500,
        errors=errors,
        error="UNAVAILABLE: gone" if errors else None,
        window_s=1.0,
        received_bytes_per_s=throughput * 100,
        histogram=Histogram.of(np.array([p99 / 2, p99 / 2, p99])),
        client=ClientView(cpu=0.2),
        kept_up=kept_up,
        server=ServerBreakdown(
            inferences=500,
            executions=250,
            queue_ms=0.1,
            compute_input_ms=0.01,
            compute_infer_ms=1.0,
            compute_output_ms=0.02,
            batches={2: (250, 1.0)},
            requests=500,
        ),
    )
    return judged(made)


def judged(point: OperatingPoint, **changes: Any) -> OperatingPoint:
    """A point with some changes, and the quality warnings that follow from what it says."""
    changed = point.model_copy(update=changes)
    return changed.model_copy(update={"warnings": warnings_in(changed)})


def served_point(
    load: int | Load = 1,
    *,
    batch: int = 1,
    executions: int = 40,
    queue_ms: float = 0.0,
    service_ms: float = 10.0,
    outside_ms: float = 0.1,
    wall_s: float | None = 1.0,
) -> OperatingPoint:
    """An operating point whose latencies are what the server says of queue and service, and `outside_ms` more."""
    latency_ms = queue_ms + service_ms + outside_ms
    server = ServerBreakdown(
        inferences=batch * executions,
        executions=executions,
        queue_ms=queue_ms,
        compute_input_ms=0.1 * service_ms,
        compute_infer_ms=0.8 * service_ms,
        compute_output_ms=0.1 * service_ms,
        batches={batch: (executions, service_ms)},
        wall_s=wall_s,
    )
    changes = {"server": server, "histogram": Histogram.of(np.full(100, latency_ms))}
    return point(load, batch * executions, latency_ms).model_copy(update=changes)


def trial(
    number: int = 0,
    *points: OperatingPoint,
    parameters: Mapping[str, LadderValue] | None = None,
    config: str = MLP,
    failure: Cause | None = None,
) -> TrialResult:
    """A finished trial."""
    return TrialResult(
        number=number,
        parameters=parameters or {},
        config=config,
        effective_config=config,
        curve=points,
        failure=Failure(cause=failure, message="it did not work", last_words="E bad\n") if failure else None,
        launch_s=1.5,
        first_answer_s=0.01,
        wall_s=6.0,
    )


@functools.cache
def space(
    text: str = "",
    config: str | None = MLP,
    effective: str = "",
    *,
    cpus: int | None = 2,
    gpus: int = 0,
    batch_size: int = 1,
) -> SearchSpace:
    """A search space: of the text of a space file, or the default one; of a model with that config, or none.

    Equal ones are built once: it takes 40 ms of CPU time, and nothing can change them.
    """
    spec: SpaceSpec = parse_space(text, "test.yaml") if text else load_space("default")
    base = None if config is None else ModelConfig.parse(config, "config.pbtxt")
    completed = ModelConfig.parse(effective or config or "", "effective")
    return SearchSpace.build(
        spec,
        base,
        completed,
        Machine(cpus, tuple(Gpu(index, f"GPU-{index}", "GPU", 1 << 30) for index in range(gpus)), "x86_64"),
        batch_size=batch_size,
    )


def ladders(built: SearchSpace) -> dict[str, tuple[Any, ...]]:
    """The ladders of a space, by parameter."""
    return {parameter.name: parameter.ladder for parameter in built.parameters}


@functools.cache
def _default_space() -> str:
    return load_space("default").model_dump_json(by_alias=True)


def identity(**changes: Any) -> Identity:
    """What a study is about; any part of it can be another."""
    values = {
        "model": "mlp",
        "repository": "/models",
        "files": "abc",
        "config": MLP,
        "slo": {"p99": "25ms"},
        "space": _default_space(),
        "requests": {"shape": {"X": [4]}},
        "server": "tritonserver 2.51.0",
        "machine": "2 CPU cores, no GPU",
        "seed": 0,
        "output_tolerance": 1e-3,
    }
    return Identity.model_validate({**values, **changes})
