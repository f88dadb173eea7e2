"""Extracts the measurements of a finished trial to which the simulator is fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tuner.config.config import ModelConfig
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.host_effects import NO_HOSTS, HostEffects
from tuner.search.twin.demand import Work
from tuner.search.twin.scheduling import Scheduling
from tuner.search.twin.service import Execution, pooled
from tuner.stats.blocks import Z95

_TIMES = ("queue_ms", "compute_input_ms", "compute_infer_ms", "compute_output_ms")


@dataclass(frozen=True)
class Level:
    """The measurement of one load level.

    Attributes:
        concurrency: Number of requests in flight; 1 in an open loop, where the load is equal in all trials.
        throughput: Throughput, in inferences/s.
        latency_ms: Latency at the SLO's percentile, in ms.
        throughput_deviation: Standard deviation of the logarithm of throughput, by its interval.
        latency_deviation: Standard deviation of the logarithm of latency, by its interval.
        batch: Mean batch size; None: not reported by the server.
        overhead_ms: Mean time of a request outside the queue and the instances, in ms; None: unknown.
        idle_ms: Mean pause of an instance between two executions while requests are queued, in ms; None: no queue.
        executions: Execution times by batch size; empty: not reported by the server.
        cores_work: Use of the processors, including the load generator's; None: unknown.
        cores: Number of processors of the machine; None: unknown.
        gpus_work: Use of the GPUs; None: no GPU, or unknown.
        gpus: Number of GPUs in use that report their utilisation.
    """

    concurrency: int
    throughput: float
    latency_ms: float
    throughput_deviation: float = 0.0
    latency_deviation: float = 0.0
    batch: float | None = None
    overhead_ms: float | None = None
    idle_ms: float | None = None
    executions: tuple[Execution, ...] = ()
    cores_work: Work | None = None
    cores: int | None = None
    gpus_work: Work | None = None
    gpus: int = 0


@dataclass(frozen=True)
class ObservedTrial:
    """The measurements of one trial.

    Attributes:
        scheduling: The scheduling of its effective config.
        setting: Number of its setting of the parameters that are not modelled; equal numbers are equal settings.
        levels: The load levels whose requests were all answered, in order of load, as on the reference.
        host: The host that measured it.
        host_deviations: Standard deviations of the logarithms of the host's effects on throughput and latency.
    """

    scheduling: Scheduling
    setting: int
    levels: tuple[Level, ...]
    host: str = ""
    host_deviations: tuple[float, float] = (0.0, 0.0)


def observed_trial(
    trial: TrialResult,
    percentile: Percentile,
    setting: int = 0,
    *,
    at_rate: bool = False,
    hosts: HostEffects = NO_HOSTS,
) -> ObservedTrial | None:
    """The measurements of a trial; None when it failed or has no usable level.

    Args:
        trial: The trial.
        percentile: The latency percentile.
        setting: The number of its setting; see `ObservedTrial`.
        at_rate: Whether the open loops of the trial count, not the closed ones.
        hosts: The effects of the hosts, which are taken off.
    """
    if not trial.effective_config or trial.failure is not None:
        return None
    config = ModelConfig.parse(trial.effective_config, "the effective config")
    scheduling = Scheduling.of(config.proto)
    kind = RequestRate if at_rate else Concurrency
    curve = on_reference(trial, hosts).curve
    points = [p for p in curve if isinstance(p.load, kind) and p.is_answered and p.throughput.value > 0]
    levels = tuple(_level(point, percentile, scheduling, setting) for point in points)
    deviations = hosts.throughput(trial.host).deviation, hosts.latency(trial.host).deviation
    return ObservedTrial(scheduling, setting, levels, trial.host, deviations) if levels else None


def on_reference(trial: TrialResult, hosts: HostEffects) -> TrialResult:
    """A trial as the mean host of the reference class would probably have measured it.

    A host that is faster by some factor has as much shorter executions.

    Args:
        trial: The trial.
        hosts: The effects of the hosts.
    """
    throughput, latency = math.exp(hosts.throughput(trial.host).mean), math.exp(hosts.latency(trial.host).mean)
    if throughput == latency == 1.0:
        return trial
    return trial.model_copy(update={"curve": tuple(_slower(p, throughput, latency) for p in trial.curve)})


def _slower(point: OperatingPoint, throughput: float, latency: float) -> OperatingPoint:
    """A point with its throughput and latency divided by factors."""
    server = point.server
    if server is not None:
        # Fewer executions in the same time, each of which takes longer.
        server = server.model_copy(
            update={
                "batches": {size: (count, ms * throughput) for size, (count, ms) in server.batches.items()},
                "wall_s": server.wall_s * throughput if server.wall_s else server.wall_s,
                **{name: getattr(server, name) * throughput for name in _TIMES},
            }
        )
    return point.model_copy(
        update={
            "throughput": point.throughput.times(1 / throughput),
            "latency_ms": {name: interval.times(1 / latency) for name, interval in point.latency_ms.items()},
            "server": server,
        }
    )


def _level(point: OperatingPoint, percentile: Percentile, scheduling: Scheduling, setting: int) -> Level:
    under_way, throughput, latency = _under_way(point), point.throughput, point.latency_ms[percentile]
    deviations = throughput.log_half_width / Z95, latency.log_half_width / Z95
    concurrency = int(under_way) if isinstance(point.load, Concurrency) else 1
    level = Level(concurrency, throughput.value, latency.value, *deviations)
    server = point.server
    if server is None or not server.wall_s or not server.executions or server.cache_hits:
        return level
    busy_s = sum(count * mean_ms for count, mean_ms in server.batches.values()) / 1e3
    inferences_busy_s = sum(size * count * mean_ms for size, (count, mean_ms) in server.batches.items()) / 1e3
    busy = busy_s / server.wall_s
    instances = scheduling.instances
    # Beside a busy instance, the others are busy as often as on average. No more are busy than there are requests.
    beside = min(1 + busy * (instances - 1) / instances, float(instances), max(1.0, under_way))
    in_server_ms = server.queue_ms + server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms
    mean_ms = under_way * point.batch_size / point.throughput.value * 1e3
    # The queue must exceed the configured delay, during which instances are idle on purpose.
    waits = server.queue_ms > max(2 * in_server_ms / 3, 1.5 * scheduling.delay_us / 1e3)
    idle_ms = max(0.0, instances * server.wall_s - busy_s) / server.executions * 1e3
    executions_per_s = server.executions / server.wall_s

    def work(devices: float | None) -> Work | None:
        if not devices:
            return None
        each_ms = devices / executions_per_s * 1e3
        return Work(setting, server.average_batch_size, instances, each_ms, devices)

    gpus = [gpu.utilization_percent for gpu in point.gpu.gpus] if point.gpu else []
    gpus_busy = [percent / 100 for percent in gpus if percent is not None]
    return replace(
        level,
        batch=server.average_batch_size,
        overhead_ms=max(0.0, mean_ms - in_server_ms),
        idle_ms=idle_ms if waits else None,
        executions=tuple(
            pooled(
                [
                    Execution(setting, size, max(1.0, beside), inferences_busy_s / busy_s, mean_ms, count)
                    for size, (count, mean_ms) in server.batches.items()
                    if mean_ms > 0
                ]
            )
        ),
        cores_work=work(_busy_cores(point)),
        cores=point.machine.cores if point.machine else None,
        gpus_work=work(sum(gpus_busy)),
        gpus=len(gpus_busy),
    )


def _under_way(point: OperatingPoint) -> float:
    """Mean number of requests in flight, in an open loop by Little's law."""
    if isinstance(point.load, Concurrency):
        return point.load.requests
    return point.throughput.value / point.batch_size * (point.histogram.mean_ms or 0.0) / 1e3


def _busy_cores(point: OperatingPoint) -> float | None:
    """Number of cores kept busy by the server and, on the same machine, by the load generator."""
    if point.server_resources is None:
        return None
    beside = point.client.cpu * point.client.processes if point.machine else 0.0
    return point.server_resources.cpu_cores + beside
