from __future__ import annotations

import itertools

import numpy as np
import picks
import pytest
from support.builders import point
from support.closed_loop import Batcher
from support.simulated_engine import SimulatedEngine

from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.core.slo import NO_LIMIT, SLO
from tuner.measure.level import measure_level
from tuner.measure.plan import result_of
from tuner.measure.points import OperatingPoint
from tuner.measure.rules import LevelRules
from tuner.recommend.certify import LEVELS, certify, is_certified
from tuner.stats.slo_verdict import SLOTest, Verdict

LIMIT = SLO.parse(["p99=20ms"])


class Server:
    """Keeps up with rates to one limit, and holds the SLO to another; each level takes two seconds."""

    def __init__(self, *, keeps_up: float, holds: float, requests: int = 5_000) -> None:
        self._keeps_up, self._holds, self._requests = keeps_up, holds, requests
        self.rates: list[float] = []

    @property
    def wall_s(self) -> float:
        return 2.0 * len(self.rates)

    def measure(self, load: Load) -> OperatingPoint:
        self.rates.append(load.level)
        holds = load.level <= self._holds
        test = SLOTest(
            percentile="p99",
            limit_ms=20.0,
            requests=self._requests,
            over=0 if holds else self._requests // 10,
            design_effect=1,
        )
        told = point(load, load.level, 10 if holds else 40, kept_up=load.level <= self._keeps_up)
        return told.model_copy(update={"limits": (test,)})

    def certify(self, *, slo: SLO = LIMIT, within_s: float = 60.0) -> OperatingPoint | None:
        return result_of(certify(1_000, slo=slo, until=within_s, now=lambda: self.wall_s), self.measure)


@pytest.mark.parametrize(("keeps_up", "holds"), [(900, 2_000), (2_000, 700), (930, 940), (560, 480)])
def test_the_highest_rate_that_holds_is_closed_in_on(keeps_up: float, holds: float) -> None:
    server = Server(keeps_up=keeps_up, holds=holds)
    found = server.certify()
    assert found is not None
    assert 0.9 * min(keeps_up, holds) < found.load.level <= min(keeps_up, holds)
    assert len(server.rates) <= 6


def test_it_may_be_none() -> None:
    server = Server(keeps_up=10, holds=10)
    assert server.certify() is None
    assert len(server.rates) == 6


def test_without_an_slo_it_is_enough_to_keep_up() -> None:
    found = Server(keeps_up=850, holds=0).certify(slo=NO_LIMIT)
    assert found is not None
    assert 780 < found.load.level <= 850


def test_when_the_time_is_up_the_best_so_far_counts() -> None:
    server = Server(keeps_up=2_000, holds=2_000)
    found = server.certify(within_s=2.0)
    assert found is not None
    assert server.rates == [900]


@pytest.mark.parametrize("within_s", [3.0, 3.9, 5.0, 7.5])
def test_no_level_is_begun_that_would_not_end_in_time(within_s: float) -> None:
    server = Server(keeps_up=10, holds=10)
    server.certify(within_s=within_s)
    assert within_s - 2.0 < server.wall_s <= within_s


def test_a_rate_is_offered_again_until_a_test_can_tell() -> None:
    server = Server(keeps_up=2_000, holds=905, requests=200)
    found = server.certify(within_s=8.0)
    assert found is not None
    # One of six rates needs 749 requests, and each level gives 200.
    assert server.rates == [900, 900, 900, 900]
    assert found.limits[0].requests == 800
    assert found.verdict(LIMIT, among=LEVELS) is Verdict.HOLDS


def test_what_one_test_alone_would_be_sure_of_is_not_enough_for_one_of_six() -> None:
    server = Server(keeps_up=2_000, holds=2_000, requests=600)
    assert server.measure(RequestRate(900)).verdict(LIMIT) is Verdict.HOLDS
    found = server.certify(within_s=6.0)
    assert found is not None
    assert server.rates == [900, 900, 900]
    assert found.limits[0].requests == 1_200


def test_a_rate_of_which_no_test_can_tell_is_given_up_after_ten_repeats() -> None:
    server = Server(keeps_up=2_000, holds=2_000, requests=10)
    assert server.certify(within_s=1e6) is None
    assert [len(list(same)) for _, same in itertools.groupby(server.rates)] == [10] * LEVELS


class Repeats:
    """Has these points told, one a second, each with 200 requests in time."""

    def __init__(self, told: list[OperatingPoint]) -> None:
        self._told = told
        self._count = 0

    def measure(self, load: Load) -> OperatingPoint:
        test = SLOTest(percentile="p99", limit_ms=20.0, requests=200, over=0, design_effect=1)
        self._count += 1
        return self._told[self._count - 1].model_copy(update={"load": load, "limits": (test,)})

    def certify(self) -> OperatingPoint | None:
        return result_of(
            certify(1_000, slo=LIMIT, until=float(len(self._told)), now=lambda: float(self._count)), self.measure
        )


def test_all_repeats_of_a_rate_count() -> None:
    found = Repeats([point(5, 900.0 + n, 10.0 + n, kept_up=True) for n in (-3, -1, 1, 3)]).certify()
    assert found is not None
    assert (found.load.level, found.requests, found.window_s) == (900, 2_000, 4.0)
    assert found.throughput.value == pytest.approx(900)
    assert found.latency_ms["p99"].value == pytest.approx(10)
    assert found.limits[0].requests == 800


@pytest.mark.parametrize("place", range(4))
def test_a_request_that_fails_in_any_repeat_certifies_nothing(place: int) -> None:
    assert Repeats([point(5, kept_up=True, errors=7 * (n == place)) for n in range(4)]).certify() is None


@pytest.mark.parametrize("place", range(4))
def test_a_repeat_that_is_not_kept_up_with_certifies_nothing(place: int) -> None:
    assert Repeats([point(5, kept_up=n != place) for n in range(4)]).certify() is None


def test_what_is_not_sure_is_not_certified() -> None:
    server = Server(keeps_up=2_000, holds=2_000, requests=100)
    assert server.certify(within_s=6.0) is None


def test_failed_requests_certify_nothing() -> None:
    good = point(RequestRate(5), kept_up=True)
    assert is_certified(good, NO_LIMIT)
    assert not is_certified(good.model_copy(update={"errors": 1}), NO_LIMIT)
    assert not is_certified(point(Concurrency(4)), NO_LIMIT)


@pytest.mark.slow
def test_of_a_server_whose_queue_is_real_the_rate_is_below_its_capacity() -> None:
    engine = SimulatedEngine(Batcher(5.0, item_ms=0.3, largest=16), np.random.default_rng(0))
    capacity, slo = 16 / 9.8 * 1e3, SLO.parse(["p99=30ms"])
    rules = LevelRules(min_s=2.0, max_s=4.0, slo=slo)

    def measure(load: Load) -> OperatingPoint:
        return measure_level(engine, load, statistics=None, health=lambda: None, rules=rules)

    found = result_of(certify(capacity, slo=slo, until=1.0, now=lambda: 0.0), measure)
    assert found is not None
    assert 0.7 * capacity < found.load.level < capacity
    assert found.verdict(slo) is Verdict.HOLDS
    assert found.latency_ms["p99"].value <= 30


def test_of_servers_just_at_the_limit_hardly_any_is_certified_and_of_others_nearly_all() -> None:
    assert picks.certified(25).share == 0
    assert picks.certified(10, room=0.2).share >= 0.9


@pytest.mark.statistics
@pytest.mark.timeout(600)
def test_of_many_servers_just_at_the_limit_one_in_a_hundred_is_certified_at_most() -> None:
    assert picks.certified(500).share <= 0.01
