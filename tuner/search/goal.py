"""The goal of a search."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.slo import SLO


@dataclass(frozen=True)
class Goal:
    """The goal: the highest throughput within the SLO; without an SLO the largest hypervolume.

    Attributes:
        slo: The limits; may be empty.
        batch_size: Inferences in each request.
        max_concurrency: The highest concurrency of the sweep.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
    """

    slo: SLO
    batch_size: int
    max_concurrency: int
    max_gpu_memory: int | None = None
