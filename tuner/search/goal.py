"""What a search is for."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.slo import SLO


@dataclass(frozen=True)
class Goal:
    """What is searched for.

    Attributes:
        slo: Limits; with one, it is throughput within it, else the hypervolume.
        batch_size: Inferences in each request.
        max_concurrency: The highest load.
        max_gpu_memory: Bytes of each GPU that a candidate may take; None: all.
    """

    slo: SLO
    batch_size: int
    max_concurrency: int
    max_gpu_memory: int | None = None
