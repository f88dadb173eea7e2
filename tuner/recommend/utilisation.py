"""How busy an operating point kept the server, and what limits it there: from the server's own statistics alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from tritonclient.grpc import model_config_pb2

from tuner.config.config import ModelConfig
from tuner.config.instances import instance_count
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.recommend.front import TrialPoint

# Between two executions an instance hands over, which no statistics count: it is full a little below 100 %.
_BUSY = 0.90
# With a request waiting for each instance at all times, whatever an instance does not compute is handing over.
_BUSY_WHILE_OTHERS_WAIT = 0.75
_GPU_BUSY = 0.95
# Of the largest batch that can be formed.
_FULL_BATCH = 0.90
_HARDLY_QUEUED = 0.10
_ELSEWHERE = 0.30
# The last request to be waited for may come late, and the statistics are means.
_DELAY_SLACK = 1.2
# An execution counts when it ends, so the reads at either end cut one off: too coarse where few fit between them.
_LONGEST_EXECUTION = 0.2


class Limit(Enum):
    """What keeps an operating point from more throughput, or from a lower latency."""

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
    """How busy the server was. None is what nobody says. Shares lie between 0 and 1.

    Attributes:
        instances: That share the model's work.
        average_batch: Inferences an execution.
        largest_batch: Inferences that one execution may hold, as the config is and requests are.
        queue_share: Of a request's time in the server, the part before an instance took it.
        waiting: Requests in the queue, on average (queue time over wall time, by Little's law).
        instance_busy: Of each instance's time, the part in which it executes: service times over wall time and
            instances.
        gpu_utilisation: Of the time, the part in which a kernel ran on the GPUs in use.
        cpu_cores: CPU seconds a second that the server took.
        elsewhere_share: Of a request's latency, the part that is neither queue nor model: network, frontend, client.
        limit: What limits it, where that is plain.
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


def utilisation(each: TrialPoint) -> Utilisation:
    """Read it off a point, its server's statistics and its trial's effective config.

    What limits is said where it is plain, the first of these that holds:

        client       the load generator was the limit
        rate         the server does not keep up with the rate
        batches      the instances are full, and their batches less than 90 % of the largest that can be
        gpu          a kernel ran 95 % of the time or more, and requests wait
        instances    the instances are full: 90 % busy or more; or 75 % while a request waits for each at all times,
                     unless a queue delay makes them wait
        elsewhere    30 % of the latency or more is neither queue nor model
        model        less than that, and less than 10 % of a request's time in the server is queue
        queue_delay  requests wait for no longer than the config's queue delay
    """
    effective = ModelConfig.parse(each.trial.effective_config or "", "the effective config").proto
    point, server = each.point, each.point.server
    instances = instance_count(effective)
    gpu_percent = point.gpu.utilization_percent if point.gpu else None
    found = Utilisation(
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
    return replace(found, limit=_limit(found, point, _queue_delay_ms(effective)))


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
        return None  # In the second case an instance executes several batches at once, as asynchronous backends do.
    return min(1.0, share)


def _elsewhere_share(point: OperatingPoint, server: ServerBreakdown) -> float | None:
    mean_ms, inside_ms = point.histogram.mean_ms, server.queue_ms + _compute_ms(server)
    if not mean_ms or not inside_ms or point.responses:
        return None
    return max(0.0, 1 - inside_ms / mean_ms)


def _compute_ms(server: ServerBreakdown) -> float:
    return server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms


def _largest_batch(effective: model_config_pb2.ModelConfig, batch_size: int) -> int | None:
    """A dynamic batcher stops at the largest preferred size; without any, each request is executed by itself."""
    if effective.HasField("sequence_batching") or effective.HasField("ensemble_scheduling"):
        return None
    if not effective.HasField("dynamic_batching"):
        return batch_size
    largest: int = max(effective.dynamic_batching.preferred_batch_size, default=effective.max_batch_size)
    return largest


def _queue_delay_ms(effective: model_config_pb2.ModelConfig) -> float:
    return float(effective.dynamic_batching.max_queue_delay_microseconds / 1e3)


def _limit(found: Utilisation, point: OperatingPoint, delay_ms: float) -> Limit | None:  # noqa: PLR0911 (a list of cases)
    if point.client_bound:
        return Limit.CLIENT
    if point.kept_up is False:
        return Limit.RATE
    queued = found.queue_share is not None and found.queue_share >= _HARDLY_QUEUED
    full = _are_instances_full(found, delay_ms)
    if full and _may_batches_grow(found):
        return Limit.BATCHES
    if queued and found.gpu_utilisation is not None and found.gpu_utilisation >= _GPU_BUSY:
        return Limit.GPU
    if full:
        return Limit.INSTANCES
    if found.elsewhere_share is not None and found.elsewhere_share >= _ELSEWHERE:
        return Limit.ELSEWHERE
    if found.elsewhere_share is not None and not queued:
        return Limit.MODEL
    if point.server and queued and delay_ms and point.server.queue_ms <= _DELAY_SLACK * delay_ms:
        return Limit.QUEUE_DELAY
    return None


def _are_instances_full(found: Utilisation, delay_ms: float) -> bool:
    busy, waiting = found.instance_busy, found.waiting
    if busy is None:
        return False
    others_wait = not delay_ms and waiting is not None and waiting >= found.instances
    return busy >= (_BUSY_WHILE_OTHERS_WAIT if others_wait else _BUSY)


def _may_batches_grow(found: Utilisation) -> bool:
    if found.average_batch is None or found.largest_batch is None:
        return False
    return found.average_batch < _FULL_BATCH * found.largest_batch
