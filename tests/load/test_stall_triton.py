"""What a server that stands still for a second does to the latencies of both kinds of load."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest
from support.services import Services, TritonService

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples

_STALL_NS = 1_000_000_000
_RATE = 200


@dataclass
class Stall:
    """Watches a load, stops the server for a second or more while it goes on, and ends it a while later.

    Attributes:
        stopped_ns: When that was, by the clock of the samples.
        continued_ns: The same.
    """

    service: TritonService
    stopped_ns: int = 0
    continued_ns: int = 0
    answered: int = 0

    def __call__(self, samples: Samples) -> float | None:
        if not self.stopped_ns:
            if len(samples) > 50:
                os.kill(self.service.pid, signal.SIGSTOP)
                self.stopped_ns = time.monotonic_ns()
        elif not self.continued_ns:
            if time.monotonic_ns() >= self.stopped_ns + _STALL_NS:
                self.continued_ns = time.monotonic_ns()
                os.kill(self.service.pid, signal.SIGCONT)
                self.answered = len(samples)
        # All that waited has been answered, and some that did not.
        elif len(samples) >= self.answered + 2 * _RATE or samples.done_ns[-1] > self.continued_ns + 20 * _STALL_NS:
            return None
        return 0.02


def waited(services: Services, load: Load) -> tuple[int, Stall]:
    """How many requests were under way or due while the server stood still, and had their answer only afterwards."""
    service = services("echo")
    stall = Stall(service)
    try:
        with WorkerEngine(service.plan("wire", 30)) as engine:
            samples = engine.offer(load, stall, first_look_s=0.1)
    finally:
        os.kill(service.pid, signal.SIGCONT)
    assert samples.errors == {}
    late = (samples.sent_ns < stall.continued_ns) & (samples.done_ns > stall.continued_ns)
    return int(np.count_nonzero(late)), stall


@pytest.mark.slow
def test_an_open_loop_shows_a_stall(services: Services) -> None:
    """All that was due meanwhile waited: half of the time on average."""
    late, stall = waited(services, RequestRate(_RATE, "constant"))
    due = _RATE * (stall.continued_ns - stall.stopped_ns) / 1e9
    assert late >= due - 2


def test_a_closed_loop_hides_it(services: Services) -> None:
    """One request has waited; those that would have come meanwhile were never sent."""
    late, _ = waited(services, Concurrency(1))
    assert late == 1
