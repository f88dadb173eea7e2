"""The utilisation of the server at an operating point, and what limits the point, from the server's own statistics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from tritonclient.grpc import model_config_pb2

from tuner.config.config import ModelConfig
from tuner.config.instances import instance_count
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.recommend.front import TrialPoint

# An instance is full above this share of time. It is below 1, as statistics lack the time between two executions.
_BUSY = 0.90
# The same if each instance always has a waiting request, so that it is idle only between two executions.
_BUSY_WHILE_OTHERS_WAIT = 0.75
# GPU utilisation above which the GPU is the limit.
_GPU_BUSY = 0.95
# Share of the largest possible batch above which batches are full.
_FULL_BATCH = 0.90
# Share of a request's time in the server below which the queue does not matter.
_HARDLY_QUEUED = 0.10
# Share of latency outside queue and model above which this part is the limit.
_ELSEWHERE = 0.30
# The mean queue time may exceed the queue delay by this factor: the last request may come late.
_DELAY_SLACK = 1.2
# The longest execution as a share of the window. Executions count at their end, so longer ones make shares inexact.
_LONGEST_EXECUTION = 0.2


class Limit(Enum):
    """The cause that limits the throughput or the latency of an operating point."""

    CLIENT = "client"
    RATE = "rate"
    BATCHES = "batches"
    INSTANCES = "instances"
    GPU = "gpu"
    QUEUE_DELAY = "queue_delay"
    ELSEWHERE = "elsewhere"
    MODEL = "model"


@dataclass(frozen=True)
class Utilisation:
    """The utilisation of the server. Shares are between 0 and 1; None means unknown.

    Attributes:
        instances: Number of model instances.
        average_batch: Mean inferences per execution.
        largest_batch: The most inferences in one execution, by the config and the size of requests.
        queue_share: Share of a request's time in the server that it waits in the queue.
        waiting: Mean number of requests in the queue (queue time over wall time, by Little's law).
        instance_busy: Share of time in which an instance executes: service times over wall time and instances.
        gpu_utilisation: Share of time in which a kernel ran on the GPUs in use.
        cpu_cores: CPU cores that the server used (CPU seconds per second).
        elsewhere_share: Share of latency outside queue and model: network, frontend, client.
        limit: What limits the point; None: no single cause is evident.
    """

    instances: int
    average_batch: float | None = None
    largest_batch: int | None = None
    queue_share: float | None = None
    waiting: float | None = None
    instance_busy: float | None = None
    gpu_utilisation: float | None = None
    cpu_cores: float | None = None
    elsewhere_share: float | None = None
    limit: Limit | None = None


def utilisation(trial_point: TrialPoint) -> Utilisation:
    """Compute the utilisation from a point, its server's statistics and its trial's effective config.

    The limit is the first of these that applies:

        client       the load generator was the limit
        rate         the server does not keep up with the rate
        batches      the instances are full, and their batches are below 90 % of the largest possible ones
        gpu          a kernel ran 95 % of the time or more, and requests are queued
        instances    the instances are full: 90 % busy or more; or 75 % while a request waits for each at all times,
                     unless a queue delay makes them wait
        elsewhere    30 % of the latency or more is outside queue and model
        model        less than that, and less than 10 % of a request's time in the server is queue
        queue_delay  requests wait for no longer than the config's queue delay
    """
    effective = ModelConfig.parse(trial_point.trial.effective_config or "", "the effective config").proto
    point, server = trial_point.point, trial_point.point.server
    instances = instance_count(effective)
    gpu_percent = point.gpu.utilization_percent if point.gpu else None
    result = Utilisation(
        instances=instances,
        average_batch=server.average_batch_size if server and server.executions else None,
        largest_batch=_largest_batch(effective, point.batch_size),
        queue_share=_queue_share(server) if server else None,
        waiting=_waiting(point, server) if server else None,
        instance_busy=_instance_busy(server, instances) if server else None,
        gpu_utilisation=None if gpu_percent is None else min(1.0, gpu_percent / 100),
        cpu_cores=point.server_resources.cpu_cores if point.server_resources else None,
        elsewhere_share=_elsewhere_share(point, server) if server else None,
    )
    return replace(result, limit=_limit(result, point, _queue_delay_ms(effective)))


def _queue_share(server: ServerBreakdown) -> float | None:
    total_ms = server.queue_ms + _compute_ms(server)
    return server.queue_ms / total_ms if total_ms > 0 else None


def _waiting(point: OperatingPoint, server: ServerBreakdown) -> float | None:
    if not server.wall_s:
        return None
    return server.inferences / point.batch_size * server.queue_ms / 1e3 / server.wall_s


def _instance_busy(server: ServerBreakdown, instances: int) -> float | None:
    if not server.wall_s or not instances or not server.batches:
        return None
    longest = max(service_ms for _, service_ms in server.batches.values()) / 1e3 / server.wall_s
    busy_ms = sum(executions * service_ms for executions, service_ms in server.batches.values())
    share = busy_ms / 1e3 / server.wall_s / instances
    if longest > _LONGEST_EXECUTION or share > 1 + 2 * longest:
        return None  # Above 1: an asynchronous backend executes several batches of an instance at once.
    return min(1.0, share)


def _elsewhere_share(point: OperatingPoint, server: ServerBreakdown) -> float | None:
    mean_ms, inside_ms = point.histogram.mean_ms, server.queue_ms + _compute_ms(server)
    if not mean_ms or not inside_ms or point.responses:
        return None
    return max(0.0, 1 - inside_ms / mean_ms)


def _compute_ms(server: ServerBreakdown) -> float:
    return server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms


def _largest_batch(effective: model_config_pb2.ModelConfig, batch_size: int) -> int | None:
    """The largest preferred size of the dynamic batcher, else `max_batch_size`; without batching one request."""
    if effective.HasField("sequence_batching") or effective.HasField("ensemble_scheduling"):
        return None
    if not effective.HasField("dynamic_batching"):
        return batch_size
    largest: int = max(effective.dynamic_batching.preferred_batch_size, default=effective.max_batch_size)
    return largest


def _queue_delay_ms(effective: model_config_pb2.ModelConfig) -> float:
    return float(effective.dynamic_batching.max_queue_delay_microseconds / 1e3)


def _limit(utilisation: Utilisation, point: OperatingPoint, delay_ms: float) -> Limit | None:  # noqa: PLR0911 (a list of cases)
    if point.client_bound:
        return Limit.CLIENT
    if point.kept_up is False:
        return Limit.RATE
    queued = utilisation.queue_share is not None and utilisation.queue_share >= _HARDLY_QUEUED
    full = _are_instances_full(utilisation, delay_ms)
    if full and _may_batches_grow(utilisation):
        return Limit.BATCHES
    if queued and utilisation.gpu_utilisation is not None and utilisation.gpu_utilisation >= _GPU_BUSY:
        return Limit.GPU
    if full:
        return Limit.INSTANCES
    if utilisation.elsewhere_share is not None and utilisation.elsewhere_share >= _ELSEWHERE:
        return Limit.ELSEWHERE
    if utilisation.elsewhere_share is not None and not queued:
        return Limit.MODEL
    if point.server and queued and delay_ms and point.server.queue_ms <= _DELAY_SLACK * delay_ms:
        return Limit.QUEUE_DELAY
    return None


def _are_instances_full(utilisation: Utilisation, delay_ms: float) -> bool:
    busy, waiting = utilisation.instance_busy, utilisation.waiting
    if busy is None:
        return False
    others_wait = not delay_ms and waiting is not None and waiting >= utilisation.instances
    return busy >= (_BUSY_WHILE_OTHERS_WAIT if others_wait else _BUSY)


def _may_batches_grow(utilisation: Utilisation) -> bool:
    if utilisation.average_batch is None or utilisation.largest_batch is None:
        return False
    return utilisation.average_batch < _FULL_BATCH * utilisation.largest_batch
