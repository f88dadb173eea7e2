from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from support.builders import point
from support.closed_loop import Batcher
from support.simulated_engine import SimulatedEngine

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.slo import SLO
from tuner.measure.client_view import ClientView
from tuner.measure.highest_rate import highest_rate, highest_sustained, is_sustained
from tuner.measure.level import measure_level
from tuner.measure.plan import points_of
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules

NONE = SLO()


class Server:
    """Answers a closed loop with up to 1,000 inferences/s, and keeps up with any rate to a limit."""

    def __init__(self, limit: float, *, p99_ms: Callable[[float], float] = lambda _: 10.0, batch_size: int = 1) -> None:
        self.rates: list[float] = []
        self.concurrencies: list[int] = []
        self._limit = limit
        self._p99_ms = p99_ms
        self._batch_size = batch_size

    def measure(self, load: Load) -> OperatingPoint:
        if isinstance(load, Concurrency):
            self.concurrencies.append(load.requests)
            found = point(load, min(1_000, 250 * load.requests), 5.0)
        else:
            self.rates.append(load.level)
            found = point(load, load.level, self._p99_ms(load.level), kept_up=load.level <= self._limit)
        return found.model_copy(update={"batch_size": self._batch_size})


def found_by(server: Server, slo: SLO = NONE) -> OperatingPoint | None:
    return highest_sustained(points_of(highest_rate(slo=slo, max_concurrency=64), server.measure), slo)


def test_a_closed_loop_finds_where_to_begin() -> None:
    server = Server(limit=950)
    assert found_by(server) is not None
    assert server.concurrencies == [1, 2, 4, 8, 16]
    assert server.rates[:2] == [900, 1_000]


@pytest.mark.parametrize("limit", [200, 480, 700, 910, 955, 990, 1_000, 1_080, 1_300])
def test_it_closes_in_on_the_limit_in_a_few_levels(limit: float) -> None:
    server = Server(limit)
    highest = found_by(server)
    assert highest is not None
    assert 0.93 * limit <= highest.load.level <= limit
    assert len(server.rates) <= 6


def test_it_ends_as_soon_as_both_sides_are_close() -> None:
    server = Server(limit=955)
    found_by(server)
    assert server.rates == [900, 1_000, 949, 974, 961]


def test_the_slo_must_hold_too() -> None:
    server = Server(limit=2_000, p99_ms=lambda rate: 20.0 if rate > 600 else 10.0)
    highest = found_by(server, SLO({"p99": 15}))
    assert highest is not None
    assert 560 <= highest.load.level <= 600


def test_no_rate_may_be_sustained() -> None:
    server = Server(limit=1)
    assert found_by(server) is None
    assert len(server.rates) == 6


def test_a_rate_is_of_requests_and_not_of_inferences() -> None:
    server = Server(limit=1_000, batch_size=10)
    found_by(server)
    assert server.rates[0] == 90


def test_what_was_measured_comes_at_once() -> None:
    server = Server(limit=1_000)
    points = points_of(highest_rate(slo=NONE, max_concurrency=64), server.measure)
    assert next(points).load == Concurrency(1)
    assert server.concurrencies == [1]


def test_a_closed_loop_is_not_sustained() -> None:
    assert not is_sustained(point(4), NONE)
    assert is_sustained(point(RequestRate(5), kept_up=True), NONE)
    assert not is_sustained(point(RequestRate(5), kept_up=False), NONE)


@pytest.mark.parametrize(
    ("batcher", "capacity"),
    [(Batcher(1.0, spread=0.3, largest=1), 1_000), (Batcher(5.0, item_ms=0.3, largest=16), 16 / 9.8 * 1e3)],
)
def test_it_comes_near_the_capacity_of_a_server_that_is_measured(batcher: Batcher, capacity: float) -> None:
    engine = SimulatedEngine(batcher, np.random.default_rng(0))

    def measure(load: Load) -> OperatingPoint:
        return measure_level(engine, load, statistics=None, health=lambda: None, rules=LevelRules())

    highest = highest_sustained(points_of(highest_rate(slo=NONE, max_concurrency=64), measure), NONE)
    assert highest is not None
    assert 0.88 * capacity < highest.load.level < 1.05 * capacity


def test_a_client_that_was_late_does_not_end_the_search() -> None:
    late = point(RequestRate(100), kept_up=True)
    assert is_sustained(late.model_copy(update={"client": ClientView(cpu=0.03, bound="it was late")}), NONE)
