from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from support.command_line import await_that
from support.inference_peer import InferencePeer
from support.relay import Relay, sockets_of
from support.services import InProcess
from tritonclient.grpc import service_pb2

from tuner.core.errors import TuningError
from tuner.core.loads import Concurrency
from tuner.load.aio.grpc_requests import in_sequence, with_id
from tuner.load.aio.sequencing import Place
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples
from tuner.load.workload import Plan, Request
from tuner.testing.engine_contract import until_requests


def plan(server: InferencePeer, model: str = "echo") -> Plan:
    return InProcess(server, model).plan("grpcio", 60)


def gone(pid: int, within_s: float) -> bool:
    """Whether a process ends in time; a zombie has ended."""
    until = time.monotonic() + within_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def test_a_worker_that_is_killed_breaks_the_offer_and_leaves_nothing(server: InferencePeer) -> None:
    with WorkerEngine(plan(server, "hang"), processes=2) as engine:
        workers = [worker._process.pid for worker in engine._workers]

        def watch(_: Samples) -> float:
            os.kill(workers[0], signal.SIGKILL)
            return 60

        with pytest.raises(TuningError, match="the load generator failed: exit code -9"):
            engine.offer(Concurrency(4), watch, first_look_s=0.1)
        assert not psutil.pid_exists(workers[0])
    assert not psutil.pid_exists(workers[1])
    assert server.wait_until_idle(20)


OWNER = """
from tuner.load.engine import WorkerEngine
from tuner.core.loads import Concurrency
from tuner.load.workload import Plan, Request, Workload
from tuner.options.endpoint import Endpoint

plan = Plan("grpcio", Endpoint({address!r}), Workload("hang", ((Request({body!r}),),)), 60)
with WorkerEngine(plan) as engine:
    engine.offer(Concurrency(3), lambda samples: 60, first_look_s=60)
"""


def test_a_worker_ends_with_its_owner(server: InferencePeer) -> None:
    (request, *_) = plan(server, "hang").workload.requests
    program = OWNER.format(address=server.address, body=request.body)
    owner = subprocess.Popen([sys.executable, "-c", program])
    until = time.monotonic() + 20
    while server.under_way < 3 and time.monotonic() < until:
        time.sleep(0.02)
    (worker,) = psutil.Process(owner.pid).children()
    owner.kill()
    owner.wait()
    assert gone(worker.pid, 20)
    assert server.wait_until_idle(20)


def test_connections_that_end_between_two_offers_fail_nothing(server: InferencePeer) -> None:
    there = plan(server)
    with Relay(server.address) as relay:
        endpoint = replace(there.endpoint, address=relay.address)
        with WorkerEngine(replace(there, endpoint=endpoint, connections=2)) as engine:
            for _ in range(3):
                assert engine.offer(Concurrency(4), until_requests(20), first_look_s=0.05).ok.all()
                with_them = sockets_of(engine)
                relay.cut()
                # The worker has heard of it then.
                await_that(lambda: len(with_them - sockets_of(engine)) >= 2)  # noqa: B023 (called at once)


def test_what_is_appended_to_a_request_is_merged_into_it() -> None:
    message = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"x"])
    message.parameters["priority"].uint64_param = 2
    request = in_sequence(Request(message.SerializeToString()), Place(2**40, start=True, end=False))
    merged = service_pb2.ModelInferRequest.FromString(request.body + with_id(17))
    message.id = "17"
    message.parameters["sequence_id"].int64_param = 2**40
    message.parameters["sequence_start"].bool_param = True
    message.parameters["sequence_end"].bool_param = False
    assert merged == message
