from __future__ import annotations

from collections.abc import Callable

import pytest
from support.builders import point
from support.nights import LIMIT, launch_at

from tuner.core.errors import Cause, ServerDiedError, TuningError
from tuner.core.loads import Concurrency
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.nightly.compare import ComparisonTerms, compare, load_within
from tuner.nightly.comparison import PairedLaunch


class Clock:
    """A launch takes 5 s of it."""

    def __init__(self) -> None:
        self.s = 0.0
        self.order: list[str] = []

    def launch(self, name: str, make: Callable[[int], PairedLaunch]) -> Callable[[int], PairedLaunch]:
        def launched(number: int) -> PairedLaunch:
            self.s += 5.0
            self.order.append(name)
            return make(number)

        return launched


def terms(clock: Clock, *, until: float = 1e6, at_last: float = 1e6, seed: int = 0) -> ComparisonTerms:
    return ComparisonTerms(LIMIT, (Concurrency(8),), 0.03, seed, until, at_last, lambda: clock.s)


def deployed(_number: int) -> PairedLaunch:
    return launch_at((8, 100.0))


def test_a_clear_gain_takes_four_pairs_in_random_order() -> None:
    clock = Clock()
    told = compare(clock.launch("d", deployed), clock.launch("c", lambda n: launch_at((8, 150.0 + n))), terms(clock))
    assert told.pairs == 4
    assert sorted(clock.order) == ["c"] * 4 + ["d"] * 4
    pairs = {tuple(clock.order[place : place + 2]) for place in range(0, 8, 2)}
    assert pairs == {("c", "d"), ("d", "c")}


def test_what_is_clearly_no_gain_takes_four_pairs() -> None:
    clock = Clock()
    assert compare(deployed, lambda n: launch_at((8, 90.0 + n / 10)), terms(clock)).pairs == 4


def test_what_is_not_clear_takes_more() -> None:
    clock = Clock()
    rates = [104.0, 120.0, 98.0, 125.0, 102.0, 118.0, 99.0, 126.0, 103.0, 110.0]
    assert compare(deployed, lambda n: launch_at((8, rates[n - 1])), terms(clock)).pairs == 10


def test_who_breaks_the_slo_is_not_measured_again() -> None:
    clock = Clock()
    assert compare(deployed, lambda _: launch_at((8, 150.0), over=200), terms(clock)).pairs == 1


def test_it_ends_in_time() -> None:
    clock = Clock()
    rates = [104.0, 120.0, 98.0, 125.0, 102.0, 118.0]
    candidate = clock.launch("c", lambda n: launch_at((8, rates[n - 1])))
    assert compare(clock.launch("d", deployed), candidate, terms(clock, until=52.0)).pairs == 5
    # Fewer than four tell nothing, so that these may take longer, within the window.
    clock = Clock()
    assert compare(clock.launch("d", deployed), candidate, terms(clock, until=12.0)).pairs == 4
    clock = Clock()
    told = compare(clock.launch("d", deployed), clock.launch("c", deployed), terms(clock, until=12.0, at_last=21.0))
    assert told.pairs == 2


def test_a_candidate_that_fails_is_done() -> None:
    def fails(number: int) -> PairedLaunch:
        if number == 2:
            raise ServerDiedError("it died", cause=Cause.CRASHED)
        return launch_at((8, 150.0))

    told = compare(deployed, fails, terms(Clock()))
    assert (told.pairs, told.failure) == (1, "crashed: it died")


def test_what_is_deployed_may_fail_once() -> None:
    tries, notes = [], list[str]()

    def fails(number: int) -> PairedLaunch:
        tries.append(number)
        if tries.count(number) == 1 and number == 2:
            raise ServerDiedError("it died", cause=Cause.CRASHED)
        return deployed(number)

    told = compare(fails, lambda n: launch_at((8, 150.0 + n)), terms(Clock()), note=notes.append)
    assert (told.pairs, told.failure) == (4, None)
    assert notes[0] == "the deployed config failed (crashed: it died); relaunching it once"
    assert notes[1].startswith("4 pairs of at most 10: ")

    def dies(_number: int) -> PairedLaunch:
        raise ServerDiedError("it died", cause=Cause.CRASHED)

    with pytest.raises(TuningError, match="the deployed config does not work: crashed: it died"):
        compare(dies, deployed, terms(Clock()))


@pytest.mark.parametrize(
    ("limit", "found", "tried"),
    [
        (64, 64, [64]),
        (32, 32, [64, 32, 45]),
        (50, 45, [64, 32, 45]),
        (5, 4, [64, 32, 16, 8, 4, 6]),
        (0, 1, [64, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_the_candidates_load_is_found_downwards(limit: int, found: int, tried: list[int]) -> None:
    asked: list[int] = []

    def measure(load: Concurrency) -> OperatingPoint:
        asked.append(load.requests)
        return point(load.requests, 100.0, 24.0 if load.requests > limit else 12.0)

    assert load_within(measure, Concurrency(64), SLO({"p99": 25.0}), at_last=1e12) == Concurrency(found)
    assert asked == tried


def test_without_a_limit_or_time_no_load_is_looked_for() -> None:
    def measure(load: Concurrency) -> OperatingPoint:
        raise AssertionError(load)

    assert load_within(measure, Concurrency(64), SLO(), at_last=1e12) == Concurrency(64)
    assert load_within(measure, Concurrency(64), SLO({"p99": 25.0}), at_last=5.0, now=lambda: 6.0) == Concurrency(64)
