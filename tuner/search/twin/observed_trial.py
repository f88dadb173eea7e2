"""What a finished trial teaches the twin."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuner.config.config import ModelConfig
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.search.twin.demand import Work
from tuner.search.twin.scheduling import Scheduling
from tuner.search.twin.service import Execution, pooled
from tuner.stats.blocks import Z95


@dataclass(frozen=True)
class Level:
    """What was measured under one load.

    Attributes:
        concurrency: Requests under way.
        throughput: Inferences a second.
        latency_ms: At the percentile that counts.
        throughput_deviation: Standard deviation of the logarithm of throughput, as far as the measurement itself tells.
        latency_deviation: The same of the latency.
        batch: Mean batch that was formed; None where the server does not say.
        overhead_ms: What a request takes outside of the server's queue and instances, in the mean; None likewise.
        idle_ms: That instances wait between two executions, in the mean, while requests wait, too; None: they do not.
        executions: What the server said of them.
        cores_work: What executions took of the processors, the load generator's part included; None: nobody says.
        cores: Processors of the machine; None: nobody says.
        gpus_work: What executions took of the GPUs; None: there are none, or nobody says.
        gpus: GPUs in use that say how busy they are.
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
    """A trial.

    Attributes:
        scheduling: What was launched.
        setting: Which setting of the parameters that the twin does not know; equal numbers are equal settings.
        levels: In order of load; those whose requests were all answered.
    """

    scheduling: Scheduling
    setting: int
    levels: tuple[Level, ...]


def observed_trial(trial: TrialResult, percentile: Percentile, setting: int = 0) -> ObservedTrial | None:
    """What a trial tells; None when it was not measured."""
    if not trial.effective_config or trial.failure is not None:
        return None
    config = ModelConfig.parse(trial.effective_config, "the effective config")
    scheduling = Scheduling.of(config.proto)
    points = [p for p in trial.curve if p.errors == 0 and p.throughput.value > 0 and p.kept_up is None]
    levels = tuple(_level(point, percentile, scheduling, setting) for point in points)
    return ObservedTrial(scheduling, setting, levels) if levels else None


def _level(point: OperatingPoint, percentile: Percentile, scheduling: Scheduling, setting: int) -> Level:
    concurrency, throughput, latency = int(point.load.level), point.throughput, point.latency_ms[percentile]
    deviations = throughput.log_half_width / Z95, latency.log_half_width / Z95
    told = Level(concurrency, throughput.value, latency.value, *deviations)
    server = point.server
    if server is None or not server.wall_s or not server.executions or server.cache_hits:
        return told
    busy_s = sum(count * mean_ms for count, mean_ms in server.batches.values()) / 1e3
    inferences_busy_s = sum(size * count * mean_ms for size, (count, mean_ms) in server.batches.items()) / 1e3
    busy = busy_s / server.wall_s
    instances = scheduling.instances
    # Who is busy sees the others as busy as they are in the mean; and no more than there are requests.
    beside = min(1 + busy * (instances - 1) / instances, float(instances), float(concurrency))
    in_server_ms = server.queue_ms + server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms
    mean_ms = concurrency * point.batch_size / point.throughput.value * 1e3
    # Not only for the delay, in which instances are idle because they are to be.
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
        told,
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


def _busy_cores(point: OperatingPoint) -> float | None:
    """Cores that the server and, where it runs on the same machine, the load generator keep busy."""
    if point.server_resources is None:
        return None
    beside = point.client.cpu * point.client.processes if point.machine else 0.0
    return point.server_resources.cpu_cores + beside
