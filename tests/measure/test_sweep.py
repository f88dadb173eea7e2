from __future__ import annotations

from collections.abc import Callable

import pytest
from support.builders import interval, served_point

from tuner.core.errors import Cause, ServerDiedError
from tuner.core.loads import Concurrency
from tuner.core.slo import PERCENTILES, SLO
from tuner.measure.client_view import ClientView
from tuner.measure.plan import points_of
from tuner.measure.points import OperatingPoint
from tuner.measure.quality_warnings import QualityCheck, QualityWarning
from tuner.measure.rivals import NOBODY, Rivals
from tuner.measure.sweep import in_order_of_load, sweep

NONE = SLO()
P99_25 = SLO({"p99": 25.0})


def point(concurrency: int, throughput: float, *, warning: float = 0.02) -> OperatingPoint:
    """A level whose latency is as Little's law has it."""
    latency = interval(concurrency / throughput * 1e3, warning)
    return OperatingPoint(
        load=Concurrency(concurrency),
        throughput=interval(throughput),
        latency_ms=dict.fromkeys(PERCENTILES, latency),
        requests=1_000,
        errors=0,
        window_s=1.0,
        client=ClientView(cpu=0.1),
    )


class Server:
    """Measures by a curve of throughput, and keeps the levels it was asked for."""

    def __init__(self, throughput: Callable[[int], float], *, warning: float = 0.02) -> None:
        self.levels: list[int] = []
        self._throughput = throughput
        self._warning = warning

    def measure(self, load: Concurrency) -> OperatingPoint:
        self.levels.append(load.requests)
        return point(load.requests, self._throughput(load.requests), warning=self._warning)


def saturating(capacity: float, alone: float) -> Callable[[int], float]:
    """Grows in proportion up to a capacity."""
    return lambda concurrency: min(capacity, alone * concurrency)


def levels(
    throughput: Callable[[int], float],
    slo: SLO = NONE,
    *,
    max_concurrency: int = 1_024,
    flat_from: int = 1,
    warning: float = 0.02,
    rivals: Rivals = NOBODY,
) -> list[int]:
    server = Server(throughput, warning=warning)
    points = list(
        points_of(sweep(slo=slo, max_concurrency=max_concurrency, flat_from=flat_from, rivals=rivals), server.measure)
    )
    assert [measured.load for measured in points] == list(map(Concurrency, server.levels))
    assert len(set(server.levels)) == len(server.levels)
    return server.levels


def test_it_doubles_until_throughput_has_stopped_growing_and_looks_at_the_knee() -> None:
    assert levels(saturating(1_000, 100)) == [1, 2, 4, 8, 16, 32, 64, 11]


def test_a_server_that_does_not_batch_is_soon_done() -> None:
    assert levels(lambda _: 600.0) == [1, 2, 4]


def test_batches_that_still_grow_may_pay_yet() -> None:
    """Batches of two and four take as many times as long as one, and larger ones hardly longer than that."""

    def measure(load: Concurrency) -> OperatingPoint:
        batch = min(load.requests, 32)
        throughput = 800.0 if batch < 8 else 1e3 * batch / (8 + 0.25 * batch)
        return point(load.requests, throughput).model_copy(update={"server": served_point(batch=batch).server})

    points = points_of(sweep(slo=NONE, max_concurrency=1_024), measure)
    assert max(each.load.level for each in points) >= 64


def test_slow_growth_adds_up() -> None:
    """4 % a doubling is less than what counts, 8 % in two is not."""
    assert max(levels(lambda concurrency: 100 * 1.04 ** (concurrency.bit_length() - 1), max_concurrency=256)) == 256


def test_a_batcher_that_gains_nothing_at_first_is_not_cut_short() -> None:
    def throughput(concurrency: int) -> float:
        return 500.0 if concurrency < 8 else 500.0 * concurrency / 4

    assert max(levels(throughput, max_concurrency=64)) == 4
    assert max(levels(throughput, max_concurrency=64, flat_from=8)) == 64


def test_throughput_that_falls_is_done_too() -> None:
    assert levels(lambda concurrency: 1_000 / concurrency) == [1, 2, 4]


@pytest.mark.parametrize(("highest", "asked"), [(1, [1]), (2, [1, 2]), (100, [1, 2, 4, 8, 16, 32, 64, 100])])
def test_it_ends_at_the_highest_load(highest: int, asked: list[int]) -> None:
    assert levels(lambda concurrency: 100.0 * concurrency, max_concurrency=highest)[: len(asked)] == asked
    assert max(levels(lambda concurrency: 100.0 * concurrency, max_concurrency=highest)) == highest


def test_it_ends_where_the_slo_is_broken_and_bisects_to_its_edge() -> None:
    """25 ms at 1,000 a second are 25 requests; 23 hold, 27 do not."""
    assert levels(saturating(1_000, 100), P99_25) == [1, 2, 4, 8, 16, 32, 23, 27]


def test_it_bisects_only_where_there_is_room() -> None:
    assert levels(lambda concurrency: 100.0 if concurrency < 2 else 60.0, P99_25) == [1, 2]
    assert levels(lambda concurrency: 200.0 if concurrency < 3 else 100.0, P99_25) == [1, 2, 4, 3]


def test_an_slo_that_is_broken_at_once_ends_it_at_once() -> None:
    assert levels(saturating(1_000, 10), P99_25) == [1]


def test_one_level_that_may_have_had_bad_luck_does_not_end_it() -> None:
    def throughput(concurrency: int) -> float:
        return 35.0 if concurrency == 1 else 100.0 * concurrency

    assert max(levels(throughput, P99_25, max_concurrency=16, warning=0.3)) == 16


def test_two_levels_in_a_row_that_break_it_do() -> None:
    assert levels(saturating(1_000, 38), P99_25, warning=0.3) == [1, 2]


def test_an_slo_that_always_holds_changes_nothing() -> None:
    assert levels(saturating(1_000, 100), SLO({"p99": 10_000.0})) == levels(saturating(1_000, 100))


def test_the_knee_is_looked_at_only_where_there_is_room() -> None:
    assert levels(saturating(200, 100)) == [1, 2, 4, 8]
    assert levels(saturating(400, 100)) == [1, 2, 4, 8, 16, 3]


def test_points_measured_before_an_error_are_not_lost() -> None:
    def measure(load: Concurrency) -> OperatingPoint:
        if load.requests == 8:
            raise ServerDiedError("gone", cause=Cause.CRASHED)
        return point(load.requests, 100.0 * load.requests)

    points: list[OperatingPoint] = []
    with pytest.raises(ServerDiedError, match="gone"):
        points.extend(points_of(sweep(slo=NONE, max_concurrency=64), measure))
    assert [measured.load.level for measured in points] == [1, 2, 4]


def test_whoever_has_seen_enough_measures_no_more() -> None:
    server = Server(saturating(1_000, 100))
    curve = points_of(sweep(slo=NONE, max_concurrency=64), server.measure)
    assert next(curve).load == Concurrency(1)
    del curve
    assert server.levels == [1]


def test_the_curve_is_in_order_of_load() -> None:
    server = Server(saturating(1_000, 100))
    curve = in_order_of_load(points_of(sweep(slo=P99_25, max_concurrency=64), server.measure))
    assert [measured.load.level for measured in curve] == [1, 2, 4, 8, 16, 23, 27, 32]


def test_who_is_beaten_and_grows_less_is_dropped() -> None:
    rivals = Rivals(((2_000.0, 4.0),))
    slowing = saturating(500, alone=100)
    server = Server(slowing)
    list(points_of(sweep(slo=NONE, max_concurrency=64, rivals=rivals), server.measure))
    assert server.levels == [1, 2, 4, 8]
    alone = Server(slowing)
    list(points_of(sweep(slo=NONE, max_concurrency=64), alone.measure))
    assert len(alone.levels) > len(server.levels)


def test_who_is_beaten_and_still_grows_with_the_load_goes_on() -> None:
    rivals = Rivals(((2_000.0, 4.0),))
    assert levels(saturating(5_000, alone=100), max_concurrency=64, rivals=rivals)[:7] == [1, 2, 4, 8, 16, 32, 64]


def test_who_was_beaten_at_one_level_alone_goes_on() -> None:
    rivals = Rivals(((590.0, 9.0),))
    assert 16 in levels(saturating(500, alone=100), max_concurrency=64, rivals=rivals)


@pytest.mark.parametrize("slo", [NONE, SLO({"p99": 1.0})])
def test_who_was_measured_badly_has_not_lost_for_sure(slo: SLO) -> None:
    rivals = Rivals(((2_000.0, 4.0),))
    warning = QualityWarning(check=QualityCheck.MACHINE_LOAD, reason="other processes used 1.2 of 2 cores")
    server = Server(saturating(500, alone=100))

    def beside_others(load: Concurrency) -> OperatingPoint:
        return server.measure(load).model_copy(update={"warnings": (warning,)})

    list(points_of(sweep(slo=slo, max_concurrency=64, rivals=rivals), beside_others))
    doubtful, server.levels = server.levels, []
    list(points_of(sweep(slo=slo, max_concurrency=64, rivals=rivals), server.measure))
    assert len(server.levels) < len(doubtful)
