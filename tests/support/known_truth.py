"""A server whose truth is known: the twin's own scheduler, with service times that are a formula."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from support.builders import point, trial

from tuner.core.loads import RequestRate
from tuner.measure.gpu_view import GpuUsage, GpuView
from tuner.measure.machine_load import MachineLoad
from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.measure.server_resources import ServerResources
from tuner.measure.trial import TrialResult
from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.batcher import Scenario, serve
from tuner.search.twin.scheduling import Scheduling
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.stats.histogram import Histogram

_ARRIVALS = 4_000
LOADS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Truth:
    """Executions take `fixed_ms`, `item_ms` for each inference, and `neighbour` as much more for each busy neighbour.

    Attributes:
        spread: Of an execution's time, as the standard deviation of its logarithm.
        noise: Of what is measured, likewise.
        cores: Of the machine, which limit how many executions there are a second; None: they do not.
        threads: Cores that an execution keeps busy when it has enough of them.
        gpu: Share of its time in which an execution keeps the machine's only GPU busy; 0: there is none.
    """

    fixed_ms: float
    item_ms: float
    neighbour: float = 0.0
    spread: float = 0.05
    noise: float = 0.0
    cores: int | None = None
    threads: float = 1.0
    gpu: float = 0.0

    def trial(self, space: SearchSpace, number: int, assignment: Assignment, rate: float | None = None) -> TrialResult:
        """What a launch tells of a candidate under rising loads, or at a rate in requests/s."""
        scheduling, _ = SchedulingMap(space).of(assignment)
        random = np.random.default_rng([number, len(assignment)])
        loads = LOADS if rate is None else (RequestRate(rate),)
        points = [self.point(scheduling, load, float(np.exp(random.normal(0, self.noise)))) for load in loads]
        config = space.candidate(assignment).config.text
        return trial(number, *points, parameters=assignment, config=config)

    def point(self, scheduling: Scheduling, load: int | RequestRate, factor: float = 1.0) -> OperatingPoint:
        """What is measured under a concurrency or a rate, as many times slower as it should be."""
        concurrency = load if isinstance(load, int) else 0
        largest = scheduling.max_batch_size if scheduling.dynamic_batching else 1
        sizes, busy = np.arange(largest + 1)[:, None], np.arange(1, scheduling.instances + 1)[None]
        alone_ms = factor * (self.fixed_ms + self.item_ms * sizes)
        # Instances get what there is of the devices in equal parts.
        shared = np.maximum(self.threads * busy / (self.cores or np.inf), self.gpu * busy)
        service_ms = alone_ms * np.maximum(1 + self.neighbour * (busy - 1), shared)
        preferred = np.zeros(largest + 1, bool)
        preferred[[size for size in scheduling.preferred if size <= largest] or [largest]] = True
        latency_ms = np.empty(max(400, 10 * concurrency) if concurrency else _ARRIVALS - 50)
        due_ms = np.empty(0)
        if isinstance(load, RequestRate):
            due_ms = np.cumsum(np.random.default_rng(7).exponential(1e3 / load.per_s, _ARRIVALS))
        throughput, batch, mean_busy = serve(
            Scenario(
                service_ms=service_ms,
                spread=self.spread,
                preferred=preferred,
                dynamic=scheduling.dynamic_batching,
                delay_ms=scheduling.delay_us / 1e3,
                concurrency=concurrency,
                due_ms=due_ms,
                answer_ms=0.01,
                away_ms=0.2,
                apart_ms=0.01,
                warm_up=2 * concurrency + 50,
            ),
            latency_ms,
            number_of(scheduling),
        )
        executions = throughput / batch
        mean_service_ms = mean_busy / executions * 1e3
        mean_ms = concurrency / throughput * 1e3 if concurrency else float(latency_ms.mean())
        server = ServerBreakdown(
            inferences=round(throughput),
            executions=round(executions),
            queue_ms=max(0.0, mean_ms - mean_service_ms - 0.2 - 0.01 * (batch + 1) / 2),
            compute_input_ms=0.0,
            compute_infer_ms=mean_service_ms,
            compute_output_ms=0.0,
            batches={max(1, round(batch)): (round(executions), mean_service_ms)},
            wall_s=1.0,
            requests=round(throughput),
        )
        kept_up = throughput >= 0.95 * load.per_s if isinstance(load, RequestRate) else None
        measured = point(load, throughput, float(np.quantile(latency_ms, 0.99)), kept_up=kept_up)
        measured = measured.model_copy(update={"histogram": Histogram.of(latency_ms)})
        at_work = executions / 1e3 * factor * (self.fixed_ms + self.item_ms * batch)
        return measured.model_copy(update={"server": server, **self._devices(at_work)})

    def _devices(self, at_work: float) -> dict[str, object]:
        """What is measured of the devices while executions, were each alone, would keep so many instances at work."""
        told: dict[str, object] = {}
        if self.cores:
            busy = self.threads * at_work
            told["server_resources"] = ServerResources(cpu_cores=busy, memory_bytes=1 << 30)
            idle = max(0.0, self.cores - busy)
            told["machine"] = MachineLoad(cores=self.cores, idle_cores=idle, elsewhere_cores=0.0, stolen_cores=0.0)
        if self.gpu:
            view = GpuView(gpu="GPU 0", uuid="GPU-0", utilization_percent=100 * self.gpu * at_work)
            told["gpu"] = GpuUsage(gpus=(view,))
        return told

    def most_per_s(self, batch: int) -> float:
        """Inferences a second that the devices allow in such batches."""
        demand = max(self.threads / (self.cores or np.inf), self.gpu)
        return batch / (self.fixed_ms + self.item_ms * batch) / demand * 1e3 if demand else np.inf


def number_of(scheduling: Scheduling) -> int:
    """A seed of its own for each scheduling."""
    return scheduling.instances + 16 * scheduling.max_batch_size + scheduling.delay_us
