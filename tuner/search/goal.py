"""The goal of a search."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO, Percentile


@dataclass(frozen=True)
class Goal:
    """The goal: the best value of the objective within the SLO; without an SLO the largest hypervolume.

    Attributes:
        slo: The limits; may be empty.
        batch_size: Inferences in each request.
        max_concurrency: The highest concurrency of the sweep.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
        objective: The objective.
    """

    slo: SLO
    batch_size: int
    max_concurrency: int
    max_gpu_memory: int | None = None
    objective: Objective = THROUGHPUT

    @property
    def percentile(self) -> Percentile:
        """The latency percentile that decides."""
        return self.objective.percentile_for(self.slo)
