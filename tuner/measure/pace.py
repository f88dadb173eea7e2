"""How fast a server answers, and so how long to wait for it under a load, and after one that was too much."""

from __future__ import annotations

import numpy as np

from tuner.core import deadlines
from tuner.core.loads import Concurrency, Load
from tuner.load.protocols import Samples


class Pace:
    """Learns from every load.

    Args:
        alone_s: Deadline of a request that is alone.
        answer_s: Seconds that a request took that was alone.
        instances: How many share the work.

    Attributes:
        behind: Whether the server may still answer requests of the last load, which nobody waits for any more.
    """

    def __init__(self, alone_s: float, answer_s: float, *, instances: int = 1) -> None:
        self._alone_s = alone_s
        self._instances = max(1, instances)
        # For a request, all instances together.
        self._service_s = answer_s / self._instances
        self._backlog = 0.0
        self.behind = False

    def took(self, answer_s: float) -> None:
        """Take note of how long a request took that was alone."""
        self._service_s = min(self._service_s, answer_s / self._instances)

    def patience_s(self, load: Load) -> float:
        """The deadline of a request under a load.

        In a closed loop each waits for all others. How many wait in an open one is the load's to show: who is late
        there for longer than a request alone may take does not keep up.
        """
        queue = load.requests if isinstance(load, Concurrency) else 0
        return deadlines.queued_s(self._alone_s, queue=queue, service_s=self._service_s)

    def saw(self, load: Load, samples: Samples) -> None:
        """Take note of what came of a load."""
        answered = int(np.count_nonzero(samples.ok))
        if answered:
            self._service_s = min(self._service_s, samples.wall_s / answered)
        # What failed for its deadline may be answered yet.
        due = load.requests if isinstance(load, Concurrency) else load.level * samples.wall_s - samples.waiting
        self._backlog = max(0.0, due - (0 if isinstance(load, Concurrency) else answered))

    def drained_within_s(self) -> float:
        """How long a request may take that comes after the last load."""
        return deadlines.backlog_s(self._alone_s, queue=self._backlog, service_s=self._service_s)
