from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support.inference_peer import InferencePeer, request_for
from support.load_engine_contract import LoadEngineContract, Serve, until_requests

from tuner.errors import Cause, ServerError, ServerHungError
from tuner.load.grpc_aio import GrpcAioEngine, ask_once
from tuner.load.protocols import Concurrency, Samples


@dataclass(frozen=True)
class InProcess:
    """A model of an `InferencePeer` as a service of the contract."""

    server: InferencePeer
    model: str

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def requests(self) -> tuple[bytes, ...]:
        return tuple(request_for(self.model, bytes([number])) for number in range(1, 4))

    def successes(self) -> int:
        return self.server.successes[self.model]

    def kill(self) -> None:
        self.server.stop()


@pytest.fixture
def server() -> Iterator[InferencePeer]:
    with InferencePeer() as server:
        yield server


class TestContract(LoadEngineContract):
    @pytest.fixture
    def serve(self, server: InferencePeer) -> Serve:
        return lambda model: InProcess(server, model)

    def make_engine(self, address: str, requests: tuple[bytes, ...], request_timeout_s: float) -> GrpcAioEngine:
        return GrpcAioEngine(address, requests, request_timeout_s=request_timeout_s)


@pytest.fixture
def engine(server: InferencePeer) -> Iterator[GrpcAioEngine]:
    with GrpcAioEngine(server.address, [request_for("sleep")], request_timeout_s=10) as engine:
        yield engine


def test_the_server_sees_exactly_the_concurrency(engine: GrpcAioEngine, server: InferencePeer) -> None:
    engine.offer(Concurrency(9), until_requests(60), first_look_s=0.05)
    assert server.most_under_way == 9


def test_nothing_is_under_way_when_it_returns(server: InferencePeer) -> None:
    with GrpcAioEngine(server.address, [request_for("hang")], request_timeout_s=60) as engine:
        engine.offer(Concurrency(5), lambda _: None, first_look_s=0.2)
        # The peer polls for what was cancelled.
        assert server.wait_until_idle(1)
        assert server.most_under_way == 5


def test_requests_that_are_nearly_done_are_not_cancelled(engine: GrpcAioEngine, server: InferencePeer) -> None:
    samples = engine.offer(Concurrency(4), until_requests(20), first_look_s=0.05)
    assert server.wait_until_idle(1)
    assert len(samples) < server.successes["sleep"] <= len(samples) + 4


def test_it_rotates_over_the_requests(server: InferencePeer) -> None:
    requests = [request_for("echo", b"%d" % number) for number in range(7)]
    with GrpcAioEngine(server.address, requests, request_timeout_s=10) as engine:
        engine.offer(Concurrency(2), until_requests(30), first_look_s=0.05)
    assert server.contents == {b"%d" % number for number in range(7)}


def test_messages_may_be_large(server: InferencePeer) -> None:
    large = request_for("echo", bytes(6_000_000))
    assert ask_once(server.address, large, timeout_s=10) < 10
    with GrpcAioEngine(server.address, [large], request_timeout_s=10) as engine:
        assert engine.offer(Concurrency(1), until_requests(2), first_look_s=0.05).ok.all()


def test_no_garbage_is_collected_during_an_offer_and_all_is_as_before_after_it(engine: GrpcAioEngine) -> None:
    during: list[bool] = []

    def watch(_: Samples) -> float | None:
        during.append(gc.isenabled())
        return None

    engine.offer(Concurrency(1), watch, first_look_s=0.01)
    assert during == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_signal_in_the_main_thread_ends_the_offer_at_once(server: InferencePeer) -> None:
    interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    with GrpcAioEngine(server.address, [request_for("hang")], request_timeout_s=60) as engine:
        interrupt.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            engine.offer(Concurrency(4), lambda _: None, first_look_s=30)
        assert time.monotonic() - began < 2
        assert server.wait_until_idle(1)


def test_closing_ends_its_thread(server: InferencePeer) -> None:
    with GrpcAioEngine(server.address, [request_for("echo")], request_timeout_s=10):
        assert "load" in {thread.name for thread in threading.enumerate()}
    assert "load" not in {thread.name for thread in threading.enumerate()}


def test_it_wants_a_request() -> None:
    with pytest.raises(ValueError, match="no request"):
        GrpcAioEngine("127.0.0.1:9", [], request_timeout_s=1)


_INTERRUPTED = """
import os, signal, sys, threading
from tuner.load.grpc_aio import GrpcAioEngine
from tuner.load.protocols import Concurrency

address, model = sys.argv[1:]
request = b"\\x0a" + bytes([len(model)]) + model.encode()
try:
    with GrpcAioEngine(address, [request], request_timeout_s=60) as engine:
        engine.offer(Concurrency(8), lambda _: None, first_look_s=0.1)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        engine.offer(Concurrency(8), lambda _: 0.01, first_look_s=0.01)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("model", ["echo", "hang"])
def test_an_interrupted_process_ends_without_a_word(server: InferencePeer, model: str) -> None:
    """In development mode asyncio and Python tell of every task, loop and socket that is left behind."""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _INTERRUPTED, server.address, model],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (130, "", "")


def test_one_request_tells_how_long_it_took(server: InferencePeer) -> None:
    assert 0.01 <= ask_once(server.address, request_for("sleep"), timeout_s=5) < 5


def test_one_request_that_fails_raises_its_code_and_message(server: InferencePeer) -> None:
    with pytest.raises(ServerError) as raised:
        ask_once(server.address, request_for("fail"), timeout_s=5)
    assert str(raised.value) == "the first request failed: INTERNAL: the model says no"
    assert raised.value.cause is Cause.REQUESTS_FAILED


def test_one_request_that_is_not_answered_hangs(server: InferencePeer) -> None:
    with pytest.raises(ServerHungError) as raised:
        ask_once(server.address, request_for("hang"), timeout_s=0.2)
    assert raised.value.cause is Cause.HUNG


def test_one_request_to_nobody_says_that_the_server_is_gone(server: InferencePeer) -> None:
    server.stop()
    with pytest.raises(ServerError) as raised:
        ask_once(server.address, request_for("echo"), timeout_s=5)
    assert raised.value.cause is Cause.CRASHED
