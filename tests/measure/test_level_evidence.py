from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.windows import exponential, window

from tuner.core.loads import Concurrency, RequestRate
from tuner.core.objectives import Objective
from tuner.core.slo import SLO, Statistic
from tuner.measure.level import Evidence
from tuner.measure.rivals import Rivals
from tuner.measure.rules import LevelRules
from tuner.stats.rates import throughput
from tuner.stats.window import Window

CLOSED = Concurrency(1)
RULES = LevelRules(narrow_looks=1)
STEADY = window(np.random.default_rng(0).normal(10, 0.2, 2_000))
WIDE = window(exponential(60))


def test_what_is_known_precisely_suffices() -> None:
    assert Evidence(CLOSED, RULES).suffices(STEADY)
    assert not Evidence(CLOSED, RULES).suffices(WIDE)


def test_it_must_be_so_at_several_looks_in_a_row() -> None:
    evidence = Evidence(CLOSED, replace(RULES, narrow_looks=2))
    assert [evidence.suffices(seen) for seen in (STEADY, WIDE, STEADY, STEADY)] == [False, False, False, True]


def test_what_is_narrow_so_soon_must_be_narrower() -> None:
    half = throughput(STEADY).relative_half_width
    asked = replace(RULES, throughput_precision=1.1 * half)
    assert Evidence(CLOSED, asked).suffices(STEADY)
    short = Window(STEADY.start_ns, STEADY.done_ns[:100], STEADY.latency_ms[:100])
    half = throughput(short).relative_half_width
    assert not Evidence(CLOSED, replace(RULES, throughput_precision=1.05 * half)).suffices(short)
    assert Evidence(CLOSED, replace(RULES, throughput_precision=1.5 * half)).suffices(short)


def test_the_throughput_of_an_open_loop_is_known_before() -> None:
    rules = replace(RULES, throughput_precision=1e-6)
    assert Evidence(RequestRate(100), rules).suffices(STEADY)
    assert not Evidence(CLOSED, rules).suffices(STEADY)


def test_who_surely_breaks_a_limit_is_known_well_enough() -> None:
    assert Evidence(CLOSED, replace(RULES, slo=SLO({"p99": 2.0}))).suffices(WIDE)


@pytest.mark.parametrize(("limit_ms", "enough"), [(10.47, False), (9.0, True), (12.0, True)])
def test_who_may_hold_a_limit_or_not_is_measured_on(limit_ms: float, *, enough: bool) -> None:
    assert Evidence(CLOSED, replace(RULES, slo=SLO({"p99": limit_ms}))).suffices(STEADY) is enough


def test_who_is_surely_beaten_is_known_well_enough() -> None:
    beaten = replace(RULES, rivals=Rivals(((10_000.0, 1.0),)))
    assert Evidence(CLOSED, beaten).suffices(WIDE)
    equal = replace(RULES, rivals=Rivals(((400.0, 1.0),)))
    assert Evidence(CLOSED, equal).suffices(WIDE)
    assert not Evidence(CLOSED, equal, batch_size=8).suffices(WIDE)


class TestAtARateThatMustBeHeld:
    QUICK = Objective.quickest(Statistic.parse("p50"), 100.0)

    def test_who_is_far_from_keeping_up_is_known_well_enough(self) -> None:
        late = Objective.quickest(Statistic.parse("p50"), 1.5 * throughput(WIDE).high)
        assert Evidence(RequestRate(100), replace(RULES, objective=late)).suffices(WIDE)
        near = Objective.quickest(Statistic.parse("p50"), 1.1 * throughput(WIDE).high)
        assert not Evidence(RequestRate(100), replace(RULES, objective=near)).suffices(WIDE)

    def test_who_is_surely_slower_than_a_rival_is_known_well_enough(self) -> None:
        """The median of the wide one is 7 ms."""
        rules = replace(RULES, objective=replace_rate(self.QUICK, throughput(WIDE).value))
        for quicker_ms, beaten in ((0.5, True), (6.5, False)):
            rivals = Rivals(((1e3 / quicker_ms, quicker_ms),))
            assert Evidence(RequestRate(100), replace(rules, rivals=rivals)).suffices(WIDE) is beaten

    def test_the_minimized_percentile_must_be_precise(self) -> None:
        assert replace(RULES, slo=SLO({"p99": 5.0}), objective=self.QUICK).percentile == "p50"


def replace_rate(objective: Objective, rate: float) -> Objective:
    return objective.model_copy(update={"rate": rate})


def test_rivals_by_power_do_not_end_a_level() -> None:
    """A level knows its throughput, but no power."""
    rules = replace(RULES, objective=Objective(metric="inferences_per_joule"), rivals=Rivals(((10_000.0, 1.0),)))
    assert not Evidence(CLOSED, rules).suffices(WIDE)
