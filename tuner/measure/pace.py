"""Deadlines of requests under a load and after an overload, from the server's speed."""

from __future__ import annotations

import numpy as np

from tuner.core import deadlines
from tuner.core.loads import Concurrency, Load
from tuner.load.protocols import Samples


class Pace:
    """Estimates the service time of a request from each load.

    Args:
        alone_s: Deadline of a single request, in seconds.
        answer_s: Seconds that a single request took.
        instances: Number of model instances.

    Attributes:
        behind: Whether the server may still answer abandoned requests of the last load.
    """

    def __init__(self, alone_s: float, answer_s: float, *, instances: int = 1) -> None:
        self._alone_s = alone_s
        self._instances = max(1, instances)
        # Seconds per request with all instances busy.
        self._service_s = answer_s / self._instances
        self._backlog = 0.0
        self.behind = False

    def took(self, answer_s: float) -> None:
        """Record the seconds that a single request took."""
        self._service_s = min(self._service_s, answer_s / self._instances)

    def patience_s(self, load: Load) -> float:
        """The deadline of a request under a load, in seconds.

        In a closed loop a request may wait for all others. In an open loop, a server that is later than the
        deadline of a single request does not keep up.
        """
        queue = load.requests if isinstance(load, Concurrency) else 0
        return deadlines.queued_s(self._alone_s, queue=queue, service_s=self._service_s)

    def saw(self, load: Load, samples: Samples) -> None:
        """Record the samples of a load."""
        answered = int(np.count_nonzero(samples.ok))
        if answered:
            self._service_s = min(self._service_s, samples.wall_s / answered)
        # The server may still answer requests that missed their deadline.
        due = load.requests if isinstance(load, Concurrency) else load.level * samples.wall_s - samples.waiting
        self._backlog = max(0.0, due - (0 if isinstance(load, Concurrency) else answered))

    def drained_within_s(self) -> float:
        """The deadline of a request after the last load, in seconds; includes the wait for the backlog."""
        return deadlines.backlog_s(self._alone_s, queue=self._backlog, service_s=self._service_s)
