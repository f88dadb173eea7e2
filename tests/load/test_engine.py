"""The life and death of workers; what they offer is tested with their drivers."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.inference_peer import InferencePeer, request_for
from support.services import InProcess

from tuner.core.errors import TuningError
from tuner.core.loads import Concurrency, RequestRate
from tuner.core.proc import read_state
from tuner.load import engine as engines
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples
from tuner.load.worker_channel import Channel
from tuner.load.workload import DriverName, Plan, Request, Workload
from tuner.options.endpoint import Tls
from tuner.testing.engine_contract import for_seconds, until_requests

pytestmark = pytest.mark.real_workers


@pytest.fixture
def plan(server: InferencePeer) -> Plan:
    return InProcess(server, "echo").plan("wire", 10)


def plan_of(server: InferencePeer, model: str, request_timeout_s: float = 60) -> Plan:
    return InProcess(server, model).plan("wire", request_timeout_s)


def workers_of(engine: WorkerEngine) -> list[psutil.Process]:
    return [psutil.Process(worker._process.pid) for worker in engine._workers]


def await_that(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def offer(engine: WorkerEngine, requests: int = 20, concurrency: int = 4) -> Samples:
    samples = engine.offer(Concurrency(concurrency), until_requests(requests), first_look_s=0.02)
    assert samples.errors == {}
    assert len(samples) >= requests
    return samples


class Arrival:
    """Ends a load when the server has had so many requests under way at once, or after a while."""

    def __init__(self, server: InferencePeer, requests: int) -> None:
        self._server = server
        self._requests = requests

    def __call__(self, samples: Samples) -> float | None:
        return None if self._server.most_under_way >= self._requests or samples.wall_s > 20 else 0.02


def test_the_server_sees_exactly_the_concurrency(server: InferencePeer) -> None:
    with WorkerEngine(plan_of(server, "sleep"), processes=2) as engine:
        engine.offer(Concurrency(9), Arrival(server, 9), first_look_s=0.02)
        offer(engine, 60, 9)
    assert server.most_under_way == 9


def test_nothing_is_under_way_when_it_returns(server: InferencePeer) -> None:
    with WorkerEngine(plan_of(server, "hang")) as engine:
        engine.offer(Concurrency(5), Arrival(server, 5), first_look_s=0.02)
        # The peer polls for what was cancelled.
        assert server.wait_until_idle(20)
        assert server.most_under_way == 5


def test_it_rotates_over_the_requests(server: InferencePeer) -> None:
    contents = {b"%d" % number for number in range(7)}
    requests = tuple(Request(request_for("echo", content)) for content in sorted(contents))
    plan = replace(plan_of(server, "echo"), workload=Workload("echo", (requests,)))
    with WorkerEngine(plan) as engine:
        offer(engine, 30, 2)
    assert server.contents == contents


def test_messages_may_be_large(server: InferencePeer) -> None:
    large = request_for("echo", bytes(6_000_000))
    plan = replace(plan_of(server, "echo"), workload=Workload("echo", ((Request(large),) * 4,)))
    with WorkerEngine(plan) as engine:
        assert engine.ask(Request(large)) == large
        offer(engine, 4, 2)


def test_it_wants_a_request(plan: Plan) -> None:
    with pytest.raises(ValueError, match="no request"):
        WorkerEngine(replace(plan, workload=Workload("echo", ())))


def test_a_closed_engine_offers_nothing(plan: Plan) -> None:
    engine = WorkerEngine(plan)
    engine.close()
    with pytest.raises(ValueError, match="the engine is closed"):
        engine.offer(Concurrency(1), until_requests(1), first_look_s=0.1)


def test_no_more_workers_take_part_than_there_is_concurrency(plan: Plan) -> None:
    with WorkerEngine(plan, processes=3) as engine:
        assert offer(engine, 20, 2).processes == 2
        assert offer(engine, 20, 3).processes == 3


def test_it_can_be_widened_between_offers(plan: Plan) -> None:
    with WorkerEngine(plan) as engine:
        (first,) = workers_of(engine)
        assert offer(engine).processes == 1
        engine.widen(3)
        assert engine.processes == 3
        assert workers_of(engine)[0] == first
        assert offer(engine).processes == 3
        engine.widen(2)
        assert engine.processes == 3


def test_a_worker_that_cannot_begin_says_why(plan: Plan) -> None:
    missing = Tls(Path("nowhere.pem"))
    with pytest.raises(TuningError, match="the load generator failed: .*nowhere.pem cannot be read"):
        WorkerEngine(replace(plan, endpoint=replace(plan.endpoint, tls=missing)), processes=2)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_that_is_killed_ends_the_offer_and_is_replaced(server: InferencePeer, processes: int) -> None:
    with WorkerEngine(plan_of(server, "sleep"), processes=processes) as engine:
        doomed = workers_of(engine)[-1]

        def watch(samples: Samples) -> float | None:
            if len(samples) > 10:
                doomed.kill()
            return 0.01

        began = time.monotonic()
        with pytest.raises(TuningError, match="the load generator failed: exit code -9"):
            engine.offer(Concurrency(4), watch, first_look_s=0.02)
        # A worker's time-out is 60 s.
        assert time.monotonic() - began < 30
        assert server.wait_until_idle(20)
        assert offer(engine).processes == processes
        assert doomed not in workers_of(engine)


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_died_at_rest_is_replaced(plan: Plan, which: int) -> None:
    with WorkerEngine(plan, processes=2) as engine:
        workers_of(engine)[which].kill()
        await_that(lambda: not engine._workers[which].lives)
        assert offer(engine).processes == 2
        workers_of(engine)[0].kill()
        await_that(lambda: not engine._workers[0].lives)
        assert engine.ask(plan.workload.requests[0])


def test_a_worker_that_cannot_be_told_stops_all_the_others(server: InferencePeer) -> None:
    """The first has begun by then."""
    with WorkerEngine(plan_of(server, "sleep"), processes=2) as engine:
        # It takes no more from its owner, and does not see that either.
        workers_of(engine)[1].suspend()
        engine._workers[1]._channel._end.close()
        with pytest.raises(TuningError, match="the load generator failed"):
            engine.offer(Concurrency(4), until_requests(1_000_000), first_look_s=0.02)
        assert server.wait_until_idle(20)
        assert offer(engine).processes == 2


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended(server: InferencePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_PATIENCE_S", 0.2)
    with WorkerEngine(plan_of(server, "echo")) as engine:
        (worker,) = workers_of(engine)

        def watch(_: Samples) -> float | None:
            worker.suspend()
            return None

        with pytest.raises(TuningError, match="the load generator did not answer within 1.2 s"):
            engine.offer(Concurrency(2), watch, first_look_s=0.05)
        assert not worker.is_running()
        monkeypatch.undo()
        offer(engine)


def test_ctrl_c_at_the_terminal_does_not_disturb_a_worker(server: InferencePeer) -> None:
    with WorkerEngine(plan_of(server, "sleep")) as engine:
        (worker,) = workers_of(engine)
        assert os.getpgid(worker.pid) != os.getpgid(0)

        def watch(samples: Samples) -> float | None:
            worker.send_signal(signal.SIGINT)
            return None if len(samples) > 50 else 0.01

        assert engine.offer(Concurrency(4), watch, first_look_s=0.02).errors == {}
        assert worker.is_running()
        worker.send_signal(signal.SIGINT)
        offer(engine)
        assert workers_of(engine) == [worker]


def test_a_signal_ends_the_offer_at_once(server: InferencePeer) -> None:
    def interrupt() -> None:
        await_that(lambda: server.under_way == 4)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    with WorkerEngine(plan_of(server, "hang")) as engine:
        interrupting.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            engine.offer(Concurrency(4), lambda _: None, first_look_s=60)
        assert time.monotonic() - began < 30
        interrupting.join()
        assert server.wait_until_idle(20)


def open_files() -> Counter[str]:
    """What this process has open, by kind."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        # The folder itself is among them, and gone by now.
        with contextlib.suppress(FileNotFoundError):
            found[str(entry.readlink()).partition(":[")[0]] += 1
    return found


def threads() -> set[str]:
    """But for those of the peer, which come and go with its calls."""
    return {each.name for each in threading.enumerate() if not each.name.startswith("ThreadPoolExecutor")}


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("moment", ["send", "receive"])
def test_an_interruption_within_a_message_waits_for_its_end(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    talk = getattr(Channel, moment)

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(Channel, moment, talk)
        signal.raise_signal(signal.SIGINT)
        return talk(*arguments)

    with WorkerEngine(plan) as engine:
        engine.offer(Concurrency(1), until_requests(3), first_look_s=0.05)
        (worker,) = engine._workers
        monkeypatch.setattr(Channel, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.offer(Concurrency(1), until_requests(3), first_look_s=0.05)
        assert engine.offer(Concurrency(1), until_requests(3), first_look_s=0.05).ok.all()
        assert engine._workers == [worker]


@pytest.mark.slow
def test_closing_leaves_nothing_behind(plan: Plan) -> None:
    with WorkerEngine(plan) as engine:
        offer(engine)
    gc.collect()
    before = open_files(), threads(), children()
    for _ in range(3):
        with WorkerEngine(plan, processes=2) as engine:
            for _ in range(3):
                offer(engine)
                engine.ask(plan.workload.requests[0])
            assert children() > before[2]
    gc.collect()
    # The peer hangs up, too, in its own time.
    await_that(lambda: (open_files(), threads(), children()) == before)


def test_samples_outlive_their_engine(plan: Plan) -> None:
    with WorkerEngine(plan) as engine:
        samples = offer(engine)
        before = samples.done_ns.tolist()
        offer(engine)
    assert samples.done_ns.tolist() == before
    with pytest.raises(ValueError, match="read-only"):
        samples.done_ns[0] = 0


_OWNER = """
import os, signal, sys
from tuner.load.engine import WorkerEngine
from tuner.core.loads import Concurrency, RequestRate
from tuner.load.workload import DriverName, Plan, Request, Workload
from tuner.options.endpoint import Endpoint

address, model, moment = sys.argv[1:]
request = Request(b"\\x0a" + bytes([len(model)]) + model.encode())
plan = Plan("wire", Endpoint(address), Workload(model, ((request,),)), 60)

def watch(samples):
    print(*[worker._process.pid for worker in engine._workers], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

engine = WorkerEngine(plan, processes=2)
if moment == "at rest":
    engine.offer(Concurrency(4), lambda _: None, first_look_s=0.1)
    watch(None)
engine.offer(RequestRate(100) if moment == "open loop" else Concurrency(4), watch, first_look_s=0.1)
"""


def has_ended(pid: int) -> bool:
    state = read_state(pid)
    return state is None or state.ended


@pytest.mark.parametrize("model", ["echo", "hang"])
@pytest.mark.parametrize("moment", ["closed loop", "open loop", "at rest"])
def test_workers_end_with_their_owner(server: InferencePeer, model: str, moment: str) -> None:
    owner = subprocess.run(
        [sys.executable, "-c", _OWNER, server.address, model, moment],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert owner.returncode == -signal.SIGKILL
    began = time.monotonic()
    pids = [int(pid) for pid in owner.stdout.split()]
    assert len(pids) == 2
    # It takes 10 ms or so; this machine may be busy.
    await_that(lambda: all(has_ended(pid) for pid in pids))
    assert time.monotonic() - began < 10
    assert server.wait_until_idle(20)


_INTERRUPTED = """
import os, signal, sys, threading
from tuner.load.engine import WorkerEngine
from tuner.core.loads import Concurrency
from tuner.load.workload import DriverName, Plan, Request, Workload
from tuner.options.endpoint import Endpoint

address, model = sys.argv[1:]
request = Request(b"\\x0a" + bytes([len(model)]) + model.encode())
plan = Plan("wire", Endpoint(address), Workload(model, ((request,),)), 60)
try:
    with WorkerEngine(plan, processes=2) as engine:
        engine.offer(Concurrency(8), lambda _: None, first_look_s=0.1)
        threading.Timer(0.2, os.killpg, (0, signal.SIGINT)).start()
        engine.offer(Concurrency(8), lambda _: 0.01, first_look_s=0.01)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["echo", "hang"])
def test_an_interrupted_process_ends_without_a_word(server: InferencePeer, model: str) -> None:
    """In development mode Python tells of every file, socket and process that is left behind."""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _INTERRUPTED, server.address, model],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (130, "", "")


def test_the_first_look_sees_an_open_loop_too(plan: Plan) -> None:
    with WorkerEngine(plan, processes=2) as engine:
        samples = engine.offer(RequestRate(200), for_seconds(0.5), first_look_s=0.2)
    assert samples.errors == {}
    assert samples.processes == 2


@pytest.mark.parametrize("driver", ["wire", "grpcio", "http"])
def test_a_worker_is_light_to_start(plan: Plan, driver: DriverName) -> None:
    with WorkerEngine(replace(plan, driver=driver)) as engine:
        (worker,) = workers_of(engine)
        libraries = Path(f"/proc/{worker.pid}/maps").read_text(encoding="utf-8")
    assert "numpy" not in libraries
    assert ("cygrpc" in libraries) is (driver == "grpcio")
