"""Nights beside a simulated neighbour: what takes the place of a deployed config is better."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.nights import LIMIT, launch_at

from tuner.core.loads import Concurrency
from tuner.nightly.compare import ComparisonTerms, compare
from tuner.nightly.comparison import PairedLaunch
from tuner.nightly.gate import decide

_LOAD = 8


class Neighbour:
    """Comes and goes at times of its own, and takes up to half of the machine while it is there."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.s, self._until, self._takes = 0.0, 0.0, 0.0

    def launch(self, rate: float) -> Callable[[int], PairedLaunch]:
        """Launches of a config that gives so much on a machine of its own; they differ by 5 %, too."""

        def launched(_number: int) -> PairedLaunch:
            self.s += 5.0
            while self._until < self.s:
                self._until += self._dice.expovariate(1 / 20)
                self._takes = self._dice.choice([0.0, self._dice.uniform(0.0, 0.5)])
            given = rate * (1 - self._takes) * self._dice.lognormvariate(0.0, 0.05)
            return launch_at((_LOAD, given))

        return launched


def _nights(ratio: float, count: int) -> int:
    """In how many nights a candidate of so many times the throughput is let through."""
    acted = 0
    for seed in range(count):
        dice = random.Random(seed)  # noqa: S311 (no secret)
        neighbour = Neighbour(dice)
        terms = ComparisonTerms(LIMIT, (Concurrency(_LOAD),), 0.03, seed, 1e9, 1e9, lambda: 0.0)
        told = compare(neighbour.launch(100.0), neighbour.launch(100.0 * ratio), terms)
        acted += decide(told, min_gain=0.03).act
    return acted


@pytest.mark.slow
@pytest.mark.parametrize(("count", "most"), [(30, 1), pytest.param(100, 2, marks=pytest.mark.statistics)])
def test_no_worse_config_takes_the_place_of_a_better_one(count: int, most: int) -> None:
    assert _nights(0.95, count) == 0
    # As good is not better by the least that is asked for.
    assert _nights(1.0, count) <= most


def test_what_is_much_better_does() -> None:
    assert _nights(2.0, 20) >= 18
