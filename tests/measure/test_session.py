from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import psutil
import pytest
from support.inference_peer import InferencePeer, request_for
from support.services import ON_BOTH, Services, TritonService
from tritonclient.grpc import model_config_pb2, service_pb2

from tuner.core.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.core.loads import Concurrency, Load, Ramp, RequestRate
from tuner.load.engine import WorkerEngine
from tuner.load.outputs import read_outputs
from tuner.load.protocols import Samples, Watch
from tuner.load.workload import Plan, Request, Workload
from tuner.measure.pace import Pace
from tuner.measure.quality_warnings import QualityCheck
from tuner.measure.rules import LevelRules
from tuner.measure.session import Session, open_session
from tuner.options.endpoint import Endpoint
from tuner.options.groups import LoadOptions
from tuner.outputs.differences import Tolerance
from tuner.outputs.golden import record_golden
from tuner.servers.protocols import Server
from tuner.testing.repositories import config_text

QUICK = LevelRules(min_s=0.1, max_s=0.2, first_look_s=0.05)


@pytest.fixture
def service(services: Services) -> TritonService:
    return services("echo")


@pytest.fixture
def server(service: TritonService) -> Server:
    return service.ports.server


def test_a_model_that_answers_is_measured_and_its_samples_are_shown(service: TritonService, server: Server) -> None:
    seen: list[tuple[Load, int]] = []
    with open_session(
        server.endpoint,
        service.model,
        LoadOptions(batch_size=2),
        rules=QUICK,
        health=server.check,
        see=lambda load, samples: seen.append((load, len(samples))),
    ) as session:
        point = session.measure(Concurrency(2))
    assert session.effective.name == service.model
    assert 0 < session.first_answer_s < 30
    assert (point.load, point.errors, point.batch_size) == (Concurrency(2), 0, 2)
    assert {load for load, _ in seen} == {Concurrency(2)}
    assert seen[-1][1] > 0.5 * point.requests


@pytest.mark.slow
def test_what_the_server_takes_is_measured_with_each_point(services: Services) -> None:
    # It works all the time: the kernel counts in ticks of 10 ms.
    service = services.load("slow", config_text(sleep_ms=0))
    server = service.ports.server
    long = LevelRules(min_s=1.0, max_s=1.2)
    with open_session(
        service.grpc,
        service.model,
        LoadOptions(),
        rules=long,
        health=server.check,
        usage=server.usage,
    ) as session:
        before = server.usage()
        point = session.measure(Concurrency(1))
        after = server.usage()
    assert before is not None
    assert after is not None
    taken = point.server_resources
    assert taken is not None
    # A part of all that it took; what it did at the edges of the window is up to the machine.
    assert 0 < taken.cpu_cores * point.window_s <= 1.5 * (after.cpu_s - before.cpu_s)
    assert taken.memory_bytes == pytest.approx(after.memory_bytes, rel=0.2)
    assert point.gpu is None


@pytest.mark.slow
def test_a_ramp_says_it_of_each_slice(service: TritonService, server: Server) -> None:
    with open_session(
        server.endpoint,
        service.model,
        LoadOptions(),
        rules=QUICK,
        health=server.check,
        usage=server.usage,
    ) as session:
        points = session.measure_ramp(Ramp(50, 100, 2.0))
    assert len(points) == 10
    assert all(point.server_resources and point.server_resources.memory_bytes > 10 << 20 for point in points)


def test_questions_are_answered_with_outputs_where_the_load_uses_shared_memory(
    service: TritonService, server: Server
) -> None:
    options = LoadOptions(shared_memory="system", batch_size=3)
    with (
        open_session(server.endpoint, service.model, options, rules=QUICK, health=server.check) as session,
        session.asking() as ask,
    ):
        replies = ask(session.questions())
    outputs = [read_outputs(*reply.responses) for (reply,) in replies]
    assert len(outputs) == 16
    assert {output.shape for (output,) in outputs} == {(3, 4)}


def test_a_server_that_is_gone_explains_what_fails_meanwhile(services: Services) -> None:
    service = services("doomed")
    with open_session(
        service.grpc, service.model, LoadOptions(), rules=QUICK, health=service.ports.server.check
    ) as session:

        def ask() -> None:
            with session.asking() as ask:
                service.kill()
                psutil.Process(service.pid).wait(10)
                record_golden(ask, session.questions(), Tolerance(1e-3))

        with pytest.raises(ServerDiedError):
            ask()


@ON_BOTH
def test_a_version_that_is_not_there(service: TritonService, server: Server) -> None:
    with (
        pytest.raises(ServerError, match="version 7"),
        open_session(server.endpoint, service.model, LoadOptions(), version="7", rules=QUICK, health=server.check),
    ):
        pass


@pytest.mark.slow
@ON_BOTH
def test_what_an_overload_leaves_in_the_queue_is_not_left_to_the_next_load(services: Services) -> None:
    """Triton goes on with requests that were cancelled: here for 10 ms each, one after the other."""
    service = services.load("slow", config_text())
    with open_session(
        service.grpc, service.model, LoadOptions(), rules=QUICK, health=service.ports.server.check
    ) as session:
        point = session.measure(RequestRate(2_000))
        assert point.kept_up is False
        before = session._statistics().inference_stats.success.count
        session._engine.ask(session._plan.workload.requests[0])
        # Nothing was before it: the one instance takes requests in their order.
        assert session._statistics().inference_stats.success.count == before + 1


class Busy(WorkerEngine):
    """One process of it is never enough: so much CPU do its samples say that each took, until there are three."""

    offers = 0

    def offer(self, load: Load, watch: Watch, *, first_look_s: float) -> Samples:
        self.offers += 1
        samples = super().offer(load, watch, first_look_s=first_look_s)
        share = 0.9 if samples.processes < 3 else 0.2
        return replace(samples, cpu_s=share * samples.wall_s * samples.processes)


@contextmanager
def busy_session(most: int) -> Iterator[tuple[Session, Busy]]:
    """A session whose client is the limit, and its engine, which may have so many processes."""
    with InferencePeer() as peer:
        requests = (Request(request_for("echo")),)
        plan = Plan("wire", Endpoint(peer.address), Workload("echo", (requests,)), 5.0)
        with Busy(plan) as engine:
            session = Session(
                model_config_pb2.ModelConfig(),
                0.0,
                plan,
                engine,
                most,
                service_pb2.ModelStatistics,
                lambda: None,
                QUICK,
            )
            yield session, engine


@pytest.mark.slow
@pytest.mark.parametrize(("most", "processes"), [(8, 4), (2, 2), (1, 1)])
def test_a_client_that_is_the_limit_gets_more_processes_where_there_are_cores(most: int, processes: int) -> None:
    with busy_session(most) as (session, engine):
        point = session.measure(Concurrency(8))
        assert engine.processes == point.client.processes == processes
    assert point.client_bound is (processes < 3)
    assert (QualityCheck.CLIENT_BOUND in {warning.check for warning in point.warnings}) is (processes < 3)


def test_what_lasts_is_measured_again_at_one_level_alone() -> None:
    with busy_session(1) as (session, engine):
        first = session.measure(Concurrency(8))
        assert engine.offers == 2
        assert QualityCheck.CLIENT_BOUND in {warning.check for warning in first.discarded}
        second = session.measure(Concurrency(4))
    assert QualityCheck.CLIENT_BOUND in {warning.check for warning in second.warnings}
    # Unless something else is doubtful, too, as a trend on a machine that others use.
    assert (engine.offers == 3) is (second.discarded == ())


def test_an_overload_is_waited_for_by_its_backlog_and_what_is_left_of_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float | None] = []

    def ask(request: Request, *, timeout_s: float | None = None) -> bytes:
        asked.append(timeout_s)
        raise ServerHungError(f"{len(request.body)} bytes: no answer", cause=Cause.HUNG)

    once = np.zeros(1, np.int64)
    with busy_session(1) as (made, engine):
        pace = Pace(5.0, 0.02)
        session = replace(made, _pace=pace)
        monkeypatch.setattr(engine, "ask", ask)
        # 100 requests a second were due for 5 s, and one was answered.
        pace.saw(RequestRate(100), Samples(once, once, np.ones(1, bool), {}, cpu_s=0.0, wall_s=5.0))
        session._let_settle()
    assert pace.behind
    assert asked == [pytest.approx(5 + 2 * 499 * 0.02)]
