"""What a server that stands still for a second does to the latencies of both kinds of load."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from support.services import TritonService

from tuner.load.engine import WorkerEngine
from tuner.load.loads import Concurrency, Load, RequestRate
from tuner.load.protocols import Samples
from tuner.servers.process_server import ProcessServer
from tuner.testing.engine_contract import Serve

pytestmark = pytest.mark.triton

_STALL_S = 1.0


class Stall:
    """Watches a load, stops the server for a second while it goes on, and ends it a while later."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopped_s: float | None = None
        self._continued_s: float | None = None

    def __call__(self, samples: Samples) -> float | None:
        now_s = samples.wall_s
        if self._stopped_s is None:
            if now_s > 0.5 and len(samples) > 100:
                os.kill(self._pid, signal.SIGSTOP)
                self._stopped_s = now_s
        elif self._continued_s is None:
            if now_s >= self._stopped_s + _STALL_S:
                os.kill(self._pid, signal.SIGCONT)
                self._continued_s = now_s
        elif now_s > self._continued_s + 1.5:
            return None
        return 0.02


@contextmanager
def echo(serve: Serve) -> Iterator[tuple[TritonService, int]]:
    service = serve("echo")
    assert isinstance(service, TritonService)
    server = service.ports.server
    assert isinstance(server, ProcessServer)
    try:
        yield service, server.pid
    finally:
        os.kill(server.pid, signal.SIGCONT)


def latency_ms(serve: Serve, load: Load) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    with echo(serve) as (service, pid), WorkerEngine(service.plan("wire", 10)) as engine:
        samples = engine.offer(load, Stall(pid), first_look_s=0.1)
    assert samples.errors == {}
    latency: np.ndarray[tuple[int], np.dtype[np.float64]] = (samples.done_ns - samples.sent_ns) / 1e6
    assert latency.max() >= 900
    return latency


def test_an_open_loop_shows_a_stall(triton_serve: Serve) -> None:
    """All that was due meanwhile waited: half a second on average."""
    latency = latency_ms(triton_serve, RequestRate(500))
    assert np.percentile(latency, 99) > 300
    assert np.count_nonzero(latency > 100) > 300


def test_a_closed_loop_hides_it(triton_serve: Serve) -> None:
    """One request has waited; those that would have come meanwhile were never sent."""
    latency = latency_ms(triton_serve, Concurrency(1))
    assert np.percentile(latency, 99) < 100
    assert np.count_nonzero(latency > 900) == 1
