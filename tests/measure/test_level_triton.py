from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from support.services import ON_BOTH, ON_TRITON, Services

from tuner.core import deadlines
from tuner.core.errors import Cause, ServerError, ServerHungError
from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.slo import SLO
from tuner.measure.plan import points_of
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.measure.session import open_session
from tuner.measure.sweep import in_order_of_load, sweep
from tuner.options.groups import LoadOptions
from tuner.testing.repositories import config_text

RULES = LevelRules(min_s=0.3, max_s=0.6)
REQUESTS_AN_INSTANCE = 4

Measure = Callable[[Load], OperatingPoint]


@pytest.fixture
def bench(services: Services) -> Iterator[Callable[..., Measure]]:
    """Loads a model, one that harms its server on a server of its own, and hands out what measures it."""
    with ExitStack() as stack:

        def start(source: str, *, harmful: bool = False, **config: object) -> Measure:
            serve = services.start if harmful else services.load
            service = serve(source, config_text(**config))  # type: ignore[arg-type]  # by name
            session = open_session(
                service.grpc,
                service.model,
                LoadOptions(),
                rules=RULES,
                health=service.ports.server.check,
                first_answer_within_s=30.0,
            )
            return stack.enter_context(session).measure

        yield start


@ON_BOTH
def test_the_servers_view_is_of_the_same_load_as_ours(bench: Callable[..., Measure]) -> None:
    measure = bench("slow", sleep_ms=10)
    began = time.monotonic()
    point = measure(Concurrency(4))
    took_s = time.monotonic() - began
    assert point.server is not None
    assert point.server.average_batch_size == 1
    ((size, (executions, service_ms)),) = point.server.batches.items()
    assert (size, executions) == (1, point.server.executions)
    assert service_ms >= point.server.compute_infer_ms
    assert service_ms >= 10
    # Three others are before each.
    assert point.server.queue_ms > point.server.compute_infer_ms
    assert point.latency_ms["p50"].value > point.server.compute_infer_ms
    # The one instance does nothing at the same time, whatever the machine does beside it.
    assert point.server.wall_s is not None
    assert 0 < point.server.wall_s < took_s
    # A reply of a busy server may come late, so its statistics may be of more time than `wall_s`.
    # One execution may have begun before.
    assert executions * service_ms / 1e3 <= took_s + service_ms / 1e3
    assert point.throughput.value <= 100


@ON_TRITON
@pytest.mark.statistics
def test_the_servers_numbers_and_ours_agree(bench: Callable[..., Measure]) -> None:
    point = bench("slow", sleep_ms=10)(Concurrency(4))
    assert point.server is not None
    assert point.server.compute_infer_ms == pytest.approx(11, rel=0.25)
    assert point.server.queue_ms == pytest.approx(3 * 11, rel=0.3)
    ((size, (executions, service_ms)),) = point.server.batches.items()
    assert (size, executions) == (1, point.server.executions)
    assert service_ms == pytest.approx(11, rel=0.25)
    assert point.throughput.value == pytest.approx(1e3 / service_ms, rel=0.15)
    # With four requests under way, the one instance is hardly ever idle.
    assert point.server.wall_s is not None
    assert executions * service_ms / 1e3 / point.server.wall_s == pytest.approx(0.95, abs=0.1)
    # Little's law, the check of every closed loop.
    assert point.throughput.value * point.latency_ms["p50"].value / 1e3 == pytest.approx(4, rel=0.15)


@pytest.mark.slow
def test_an_open_loop_is_kept_up_with_or_not(bench: Callable[..., Measure]) -> None:
    measure = bench("slow", sleep_ms=10)
    hard = measure(RequestRate(300))
    # A machine that stands still for a moment is behind for once.
    tries = (measure(RequestRate(30, "constant")) for _ in range(10))
    easy = next((point for point in tries if point.kept_up), None)
    assert easy is not None
    assert hard.kept_up is False
    assert hard.throughput.value < 110
    # Each request that is due has to wait for all those before it.
    assert hard.latency_ms["p50"].value > easy.latency_ms["p50"].value


@ON_BOTH
def test_batches_that_are_formed_are_seen(bench: Callable[..., Measure]) -> None:
    point = bench("slow", sleep_ms=10, more="dynamic_batching {}")(Concurrency(8))
    assert point.server is not None
    assert point.average_batch_size is not None
    assert point.average_batch_size > 1
    assert max(point.server.batches) > 1
    inferences = sum(size * executions for size, (executions, _) in point.server.batches.items())
    assert inferences == pytest.approx(point.server.inferences, abs=16)


@ON_TRITON
@pytest.mark.statistics
def test_a_batcher_is_swept_to_where_it_is_full(bench: Callable[..., Measure]) -> None:
    measure = bench("slow", sleep_ms=10, more="dynamic_batching {}")
    curve = in_order_of_load(points_of(sweep(slo=SLO(), max_concurrency=64, flat_from=REQUESTS_AN_INSTANCE), measure))
    best = max(point.throughput.value for point in curve)
    assert curve[-1].load.level >= 16
    # Eight at once in a bit more than 10 ms; one at a time are less than 100.
    assert 450 < best < 800
    assert curve[0].throughput.value < 100


@ON_TRITON
@pytest.mark.statistics
def test_two_measurements_of_a_level_agree(bench: Callable[..., Measure]) -> None:
    measure = bench("slow", sleep_ms=20)
    first, second = measure(Concurrency(2)).throughput, measure(Concurrency(2)).throughput
    assert first.value == pytest.approx(second.value, rel=0.15)


@pytest.mark.slow
def test_a_model_that_hangs_under_load_hangs(bench: Callable[..., Measure], monkeypatch: pytest.MonkeyPatch) -> None:
    # How patient to be is another test's; it would be 5 s and more.
    monkeypatch.setattr(deadlines, "_ANSWER_PATIENCE_S", 1.0)
    monkeypatch.setattr(deadlines, "_ANSWER_FACTOR", 10.0)
    measure = bench("hangs", harmful=True, hang_when_batch_exceeds=1, more="dynamic_batching {}")
    with pytest.raises(ServerHungError, match=r"no request was answered for [\d.]+ s at concurrency 8"):
        measure(Concurrency(8))


def test_a_model_that_crashes_under_load_has_crashed(bench: Callable[..., Measure]) -> None:
    measure = bench("crashes", harmful=True, crash_when_batch_exceeds=1, more="dynamic_batching {}")
    with pytest.raises(ServerError) as raised:
        measure(Concurrency(8))
    assert raised.value.cause is Cause.CRASHED


def test_a_model_that_fails_at_once_says_why(bench: Callable[..., Measure]) -> None:
    with pytest.raises(ServerError, match="the first request failed: INTERNAL: .*no weights for you"):
        bench("fails_requests", message="no weights for you")
