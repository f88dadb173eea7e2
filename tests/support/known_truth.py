"""A server whose truth is known: the twin's own scheduler, with service times that are a formula."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from support.builders import point, trial

from tuner.measure.points import OperatingPoint, ServerBreakdown
from tuner.search.schedulings import Schedulings
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace
from tuner.trial import TrialResult
from tuner.twin.batcher import serve
from tuner.twin.scheduling import Scheduling

LOADS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Truth:
    """Executions take `fixed_ms`, `item_ms` for each inference, and `neighbour` as much more for each busy neighbour.

    Attributes:
        spread: Of an execution's time, as the standard deviation of its logarithm.
        noise: Of what is measured, likewise.
    """

    fixed_ms: float
    item_ms: float
    neighbour: float = 0.0
    spread: float = 0.05
    noise: float = 0.0

    def trial(self, space: SearchSpace, number: int, assignment: Assignment) -> TrialResult:
        """What a launch tells of a candidate."""
        scheduling, _ = Schedulings(space).of(assignment)
        random = np.random.default_rng([number, len(assignment)])
        points = [self.point(scheduling, load, float(np.exp(random.normal(0, self.noise)))) for load in LOADS]
        config = space.candidate(assignment).config.text
        return trial(number, *points, parameters=assignment, config=config)

    def point(self, scheduling: Scheduling, concurrency: int, factor: float = 1.0) -> OperatingPoint:
        """What is measured under a load, as many times slower as it should be."""
        largest = scheduling.max_batch_size if scheduling.dynamic_batching else 1
        sizes, busy = np.arange(largest + 1)[:, None], np.arange(1, scheduling.instances + 1)[None]
        service_ms = factor * (self.fixed_ms + self.item_ms * sizes) * (1 + self.neighbour * (busy - 1))
        preferred = np.zeros(largest + 1, bool)
        preferred[[size for size in scheduling.preferred if size <= largest] or [largest]] = True
        latency_ms = np.empty(max(400, 10 * concurrency))
        throughput, batch, mean_busy = serve(
            service_ms,
            self.spread,
            0.0,
            0.0,
            preferred,
            scheduling.dynamic_batching,
            scheduling.delay_us / 1e3,
            1,
            concurrency,
            np.empty(0),
            0.01,
            0.2,
            0.01,
            2 * concurrency + 50,
            latency_ms,
            number_of(scheduling),
        )
        executions = throughput / batch
        mean_service_ms = mean_busy / executions * 1e3
        mean_ms = concurrency / throughput * 1e3
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
        measured = point(concurrency, throughput, float(np.quantile(latency_ms, 0.99)))
        return measured.model_copy(update={"server": server})


def number_of(scheduling: Scheduling) -> int:
    """A seed of its own for each scheduling."""
    return scheduling.instances + 16 * scheduling.max_batch_size + scheduling.delay_us
